"""`psserve reload`: have the running fleet follow the zoo."""

from __future__ import annotations

from pathlib import Path

import click

from .options import zoo_option


@click.command("reload")
@zoo_option
def command(zoo_dir: Path | None) -> None:
    """Have the running fleet serve what the zoo has now: add, replace and remove modules, without ending a request.

    What fails is named and leaves the fleet as it is; the rest is done. With `psserve launch --watch` this happens by
    itself.
    """
    from psserve.zoo import find_zoo

    from .live import change_live

    change_live(find_zoo(zoo_dir).resolve(), "reload")
