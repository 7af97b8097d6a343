"""`psserve rollback`: an older version of a module."""

from __future__ import annotations

from pathlib import Path

import click

from .completion import complete_module
from .live import live_option
from .options import zoo_option


@click.command("rollback")
@click.argument("name", shell_complete=complete_module)
@click.option("--to", "version", type=click.IntRange(1), help="The version [default: the one before the present one].")
@live_option
@zoo_option
def command(name: str, version: int | None, live: bool, zoo_dir: Path | None) -> None:
    """Give the module NAME (not an alias) the weights of an older version back, which `psserve update-model` has kept.

    `psserve show NAME` lists them. No version is deleted, so that --to can also go forward again. Name, aliases, task
    and examples stay what they are. With --live the running fleet follows as it does for `psserve update-model --live`:
    no request fails.

    If a version is on trial (`psserve update-model --canary`), the trial ends, and the module stays what it is; where
    the fleet was stopped, the next one does not take it up.

    \b
    Example:
      psserve rollback math --live
    """
    from psserve.zoo import Zoo, find_zoo

    from .add_model import module_line
    from .live import follow_update, require_fleet
    from .trials import end_trial, require_judged

    zoo = Zoo.open(find_zoo(zoo_dir))
    zoo.check_own_name(name)
    if version is None and end_trial(zoo.path, name):
        return
    if version is not None:
        require_judged(zoo.path, name, version)
    if live:
        require_fleet(zoo.path)
    before = zoo.module(name).version
    module = zoo.roll_back(name, version)
    if module.version == before:
        click.echo(f"{name} is version {before} already", err=True)
    else:
        click.echo(f"version {module.version} of {module_line(module)} is in the place of version {before}", err=True)
    follow_update(zoo.path, name, live)
