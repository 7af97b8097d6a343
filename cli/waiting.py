"""Waiting for a zoo that another command is changing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from psserve.errors import ZooBusy

Made = TypeVar("Made")


def when_free(change: Callable[[], Made]) -> Made:
    """Make a change of the zoo after those of other commands, however long they take: an import may take minutes, and
    what was measured must not be lost to that.

    Says on stderr whom it waits for.
    """
    told = ""
    while True:
        try:
            return change()
        except ZooBusy as error:
            if str(error) != told:
                click.echo(f"waiting for another command: {error}", err=True)
                told = str(error)
