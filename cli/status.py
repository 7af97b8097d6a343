"""`psserve status`: the running fleet."""

from __future__ import annotations

import time
from pathlib import Path

import click

from .options import json_option, zoo_option


@click.command("status")
@zoo_option
@json_option
def command(zoo_dir: Path | None, as_json: bool) -> None:
    """Show the zoo's running fleet: every server, its state, its restarts. Exit status 1 if none runs."""
    from psserve.fleet.control import live_state
    from psserve.zoo import find_zoo

    state = live_state(find_zoo(zoo_dir))
    if as_json:
        click.echo(state.model_dump_json(indent=1))
        return
    click.echo(f"{state.url}  base {state.base}  zoo {state.zoo}  supervisor pid {state.supervisor.pid}")
    click.echo(f"{'server':<24} {'state':<11} {'pid':>8} {'port':>6} {'restarts':>8} {'up':>8}")
    for server in state.servers:
        up = "-" if server.pid is None or server.started is None else f"{time.time() - server.started:.0f} s"
        click.echo(
            f"{server.name:<24} {server.state:<11} {server.pid or '-':>8} {server.port:>6} {server.restarts:>8} {up:>8}"
        )
        if server.state != "ready" and server.error:
            click.echo(f"  {server.error}")
