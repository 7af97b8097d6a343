"""`psserve status`: the running fleet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import json_option, zoo_option

if TYPE_CHECKING:
    from rich.console import Console

    from psserve.fleet.observe.overview import FleetOverview


@click.command("status")
@zoo_option
@click.option("--watch", "-w", is_flag=True, help="Go on until Ctrl-C: the table is refreshed in place.")
@click.option(
    *("--interval-secs", "interval_s"),
    type=click.FloatRange(min=0.2),
    default=2.0,
    show_default=True,
    help="Pause between two looks of --watch.",
)
@json_option
def command(zoo_dir: Path | None, watch: bool, interval_s: float, as_json: bool) -> None:
    """Show the zoo's running fleet: what every server is doing. Exit status 1 if none runs.

    memory is main memory (PSS: what processes share is counted once), GPU that of GPUs; running and queued are requests
    at this moment; hits is the share of prompt tokens that the base had cached (a decode server's: of its module's
    prompts; the router's: of all); KV is the share of the KV pool that requests hold. A dash: it did not answer, or
    has none. With one KV pool (docs/one-pool.md) two lines tell of it and of each module's own part, and one of each
    version on trial (docs/versions.md). With --watch, --json prints a document a line.
    """
    from psserve.zoo import find_zoo

    looks = _looks(find_zoo(zoo_dir), interval_s if watch else None)
    try:
        if as_json:
            for fleet in looks:
                click.echo(fleet.model_dump_json(indent=None if watch else 1))
        else:
            _show(looks, in_place=watch and sys.stdout.isatty())
    except KeyboardInterrupt:
        if not watch:
            raise


def _looks(zoo: Path, every_s: float | None) -> Iterator[FleetOverview]:
    """One look at the fleet, or one after the other for as long as it runs."""
    from psserve.fleet.observe.overview import survey

    yield survey(zoo)
    while every_s is not None:
        time.sleep(every_s)
        yield survey(zoo)


def _show(looks: Iterator[FleetOverview], in_place: bool) -> None:
    from psserve.console import console, show
    from psserve.fleet.observe.status_table import render_status

    out = console()
    if in_place and not out.is_dumb_terminal:
        _redraw(looks, out)
        return
    for number, fleet in enumerate(looks):
        if number:
            out.print()
        show(render_status(fleet, out), out)


def _redraw(looks: Iterator[FleetOverview], out: Console) -> None:
    """Refresh the table on a screen of its own; what it showed last stays on the terminal."""
    from rich.live import Live

    from psserve.fleet.observe.status_table import render_status

    fleet = next(looks)
    try:
        with Live(render_status(fleet, out), console=out, screen=True, auto_refresh=False) as live:
            for fleet in looks:
                live.update(render_status(fleet, out), refresh=True)
    finally:
        out.print(render_status(fleet, out))
