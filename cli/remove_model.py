"""`psserve remove-model`: delete a module."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from psserve.errors import UsageError

from .completion import complete_module
from .live import live_option
from .options import zoo_option


@click.command("remove-model")
@click.argument("name", shell_complete=complete_module)
@click.option("--yes", is_flag=True, help="Do not ask.")
@live_option
@zoo_option
def command(name: str, yes: bool, live: bool, zoo_dir: Path | None) -> None:
    """Delete the module NAME (not an alias) from the zoo, for good, damaged or not.

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
    zoo.check_own_name(name)
    if live:
        require_fleet(zoo.path)
    else:
        require_not_served(zoo.path, name, "say --live to end its service")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{name}: no terminal to ask on whether to delete it: say --yes")
        click.confirm(f"Delete module {name} of {zoo.path} for good?", abort=True, err=True)
    if live:
        change_live(zoo.path, "remove", name)
    zoo.remove(name)
    forget_checkpoint(zoo.path, name)
    click.echo(f"removed {name} from {zoo.path}", err=True)
