"""`psserve path`: where the zoo or a module is on disk."""

from __future__ import annotations

from pathlib import Path

import click

from .completion import complete_module
from .options import zoo_option


@click.command("path")
@click.argument("name", required=False, shell_complete=complete_module)
@zoo_option
def command(name: str | None, zoo_dir: Path | None) -> None:
    """Print the zoo's directory, or that of the module or alias NAME, damaged or not.

    \b
    Example:
      ls "$(psserve path math)"
    """
    from psserve.zoo import Zoo, find_zoo

    path = find_zoo(zoo_dir).resolve()
    if name is not None:
        path = path / "modules" / Zoo.read(path).scan().owner(name)
    click.echo(path)
