"""`psserve remove-model`: delete a module."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psserve.errors import ModuleServed, UsageError

from .completion import complete_module
from .live import live_option
from .options import zoo_option

if TYPE_CHECKING:
    from psserve.zoo import Zoo


@click.command("remove-model")
@click.argument("name", shell_complete=complete_module)
@click.option("--yes", is_flag=True, help="Do not ask.")
@live_option
@zoo_option
def command(name: str, yes: bool, live: bool, zoo_dir: Path | None) -> None:
    """Delete the module NAME (not an alias) from the zoo, for good, with all its versions, damaged or not.

    NAME@VERSION deletes one of its older versions alone.

    It is refused while the zoo's running fleet serves the module, unless --live: then the fleet ends its service first,
    after its last request. Weights that were only linked stay where they are.

    \b
    Example:
      psserve remove-model math
    """
    from psserve.zoo import Zoo, find_zoo

    from .live import change_live, require_fleet
    from .served import forget_checkpoint, require_not_served

    zoo = Zoo.open(find_zoo(zoo_dir))
    module, _, version = name.partition("@")
    if version and live:
        raise UsageError(f"--live is for whole modules: `psserve rollback {module}` ends a trial")
    if version:
        remove_version(zoo, module, version, yes)
        return
    zoo.check_own_name(name)
    if live:
        require_fleet(zoo.path)
    else:
        require_not_served(zoo.path, name, "say --live to end its service")
    confirm(f"module {name}", zoo, yes)
    if live:
        change_live(zoo.path, "remove", name)
    zoo.remove(name)
    forget_checkpoint(zoo.path, name)
    click.echo(f"removed {name} from {zoo.path}", err=True)


def remove_version(zoo: Zoo, module: str, version: str, yes: bool) -> None:
    """Delete a version of a module that nobody serves. Raises UsageError, ModuleServed, or as `Zoo.remove_version`."""
    from .served import versions_served

    if not version.isdecimal():
        raise UsageError(f"{module}@{version}: a version is a number")
    if int(version) in versions_served(zoo.path, module).numbers:
        raise ModuleServed(f"the running fleet serves version {version} of module {module!r}: end that first")
    confirm(f"version {version} of module {module}", zoo, yes)
    zoo.remove_version(module, int(version))
    click.echo(f"removed version {version} of {module} from {zoo.path}", err=True)


def confirm(what: str, zoo: Zoo, yes: bool) -> None:
    """Ask whether to delete it, unless it was said (`yes`). UsageError: there is nobody to ask."""
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{what}: no terminal to ask on whether to delete it: say --yes")
        click.confirm(f"Delete {what} of {zoo.path} for good?", abort=True, err=True)
