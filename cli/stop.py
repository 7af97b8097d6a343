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
    from psserve.fleet.plan.layout import run_dir
    from psserve.fleet.run.trials import kept_trials
    from psserve.zoo import find_zoo

    zoo = find_zoo(zoo_dir)
    state = stop_fleet(zoo, now=now)
    click.echo(f"stopped {state.url}: {', '.join(server.name for server in state.servers)}")
    for trial in kept_trials(run_dir(zoo)):
        click.echo(
            f"note: {trial} was on trial: the next `psserve launch` takes it up again, "
            f"`psserve rollback {trial.module}` ends the trial",
            err=True,
        )
