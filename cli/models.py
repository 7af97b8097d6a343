"""`psserve models`: what the zoo holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import json_option, zoo_option

if TYPE_CHECKING:
    from psserve.zoo import Module, Zoo

COLUMNS = ("NAME", "KIND", "SIZE", "ALIASES", "TASK")


@click.command()
@json_option
@zoo_option
def command(as_json: bool, zoo_dir: Path | None) -> None:
    """List the zoo's base and modules.

    \b
    Example:
      psserve models --json
    """
    from psserve.zoo import Zoo, find_zoo

    zoo = Zoo.open(find_zoo(zoo_dir))
    modules = zoo.modules()
    if as_json:
        click.echo(json.dumps(document(zoo, modules), indent=2))
    else:
        show(rows(zoo, modules))


def document(zoo: Zoo, modules: list[Module]) -> dict[str, object]:
    """What `--json` prints: the manifests without their lists of files."""
    hidden = {"files"}
    return {
        "zoo": str(zoo.path),
        "base": zoo.base.model_dump(mode="json", exclude=hidden) | {"weight_bytes": zoo.base.weight_bytes},
        "modules": [
            module.model_dump(mode="json", exclude=hidden) | {"weight_bytes": module.weight_bytes} for module in modules
        ],
    }


def rows(zoo: Zoo, modules: list[Module]) -> list[tuple[str, ...]]:
    """One row for the base, then one a module."""
    base = (zoo.base.name, "base", size(zoo.base.weight_bytes), "", f"{zoo.base.architecture}, {zoo.base.dtype}")
    return [base, *((m.name, m.kind, size(m.weight_bytes), ", ".join(m.aliases), m.task) for m in modules)]


def size(count: int) -> str:
    """Bytes, readable."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def show(rows: list[tuple[str, ...]]) -> None:
    """A table on a terminal; lines of tab-separated fields, which other programs can read, elsewhere."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
