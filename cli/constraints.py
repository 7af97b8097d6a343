"""`psserve constraints`: where the tested versions of all packages are listed."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("constraints")
def command() -> None:
    """Print the path of a file of constraints for pip: the versions that this psserve was tested with.

    \b
    pip install "psserve[train]" --constraint "$(psserve constraints)"
    """
    import psserve

    click.echo(Path(psserve.__file__).with_name("constraints.txt"))
