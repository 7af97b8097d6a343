"""Commands that use every module of the zoo leave damaged ones out, and say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from psserve.zoo import Zoo


def warn_damaged(zoo: Zoo) -> None:
    """Name each damaged module on stderr, with what to do."""
    for name, error in zoo.scan().damaged.items():
        click.echo(f"warning: module {name} is left out: {error}", err=True)
