"""`psserve logs`: what the processes of a fleet wrote."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .completion import complete_log
from .options import zoo_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psserve.fleet.observe.follow import LogFile, NamedLine

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")


@click.command("logs")
@click.argument("name", required=False, shell_complete=complete_log)
@click.option("--follow", "-f", "following", is_flag=True, help="Go on with what is written, until Ctrl-C.")
@click.option(
    "--lines", "-n", "count", type=click.IntRange(min=0), default=20, show_default=True, help="Last lines of each log."
)
@zoo_option
def command(name: str | None, following: bool, count: int, zoo_dir: Path | None) -> None:
    """Print the logs of the zoo's fleet, also of one that has ended.

    NAME is a server as `psserve status` lists it, `router`, `supervisor` (of a detached fleet), or a module, for all
    its servers; without NAME, all of them, each line after the name of its process.

    \b
    psserve logs math -f
    psserve logs router -n 100
    """
    from psserve.fleet.observe.follow import choose_logs, follow, last_lines
    from psserve.zoo import zoo_path

    choose = partial(choose_logs, zoo_path(zoo_dir), name)
    logs = choose()
    try:
        _print(follow(choose, count) if following else last_lines(logs, count), logs)
    except KeyboardInterrupt:
        if not following:
            raise


def _print(lines: Iterator[NamedLine], logs: Sequence[LogFile]) -> None:
    """Each line after the name of its process, if there are several. Names get colours as they come up."""
    from rich.text import Text

    from psserve.console import console

    out = console()
    width = max(len(log.name) for log in logs)
    styles: dict[str, str] = {}
    for name, line in lines:
        if len(logs) == 1 and name == logs[0].name:
            out.print(Text(line), soft_wrap=True)
            continue
        style = styles.setdefault(name, COLOURS[len(styles) % len(COLOURS)])
        out.print(Text.assemble((f"{name:<{width}} | ", style), line), soft_wrap=True)
