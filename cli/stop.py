"""`psserve stop`: end the running fleet."""

from __future__ import annotations

from pathlib import Path

import click

from .options import zoo_option


@click.command("stop")
@zoo_option
@click.option("--now", is_flag=True, help="Do not let requests in flight finish.")
def command(zoo_dir: Path | None, now: bool) -> None:
    """Stop the zoo's running fleet and wait until all its processes have gone."""
    from psserve.fleet.observe.control import stop_fleet
    from psserve.zoo import find_zoo

    state = stop_fleet(find_zoo(zoo_dir), now=now)
    click.echo(f"stopped {state.url}: {', '.join(server.name for server in state.servers)}")
