"""`psserve rename-model`: give a module another name."""

from __future__ import annotations

from pathlib import Path

import click

from .completion import complete_module
from .options import zoo_option


@click.command("rename-model")
@click.argument("old", shell_complete=complete_module)
@click.argument("new")
@click.option("--keep-alias", is_flag=True, help="Let OLD be an alias, so that clients may go on asking for it.")
@zoo_option
def command(old: str, new: str, keep_alias: bool, zoo_dir: Path | None) -> None:
    """Call the module OLD (not an alias) NEW. It is refused while the zoo's running fleet serves the module.

    \b
    Example:
      psserve rename-model math math-v1 --keep-alias
    """
    from psserve.zoo import Zoo, find_zoo

    from .served import forget_checkpoint, require_not_served

    zoo = Zoo.open(find_zoo(zoo_dir))
    zoo.check_own_name(old)
    require_not_served(zoo.path, old)
    zoo.rename(old, new, keep_alias)
    forget_checkpoint(zoo.path, old)
    click.echo(f"renamed {old} to {new} in {zoo.path}", err=True)
