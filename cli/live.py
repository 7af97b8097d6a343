"""Having the running fleet follow a change of the zoo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from psserve.errors import FleetError, NotRunning

if TYPE_CHECKING:
    from psserve.fleet.run.protocol import ChangeCommand

live_option = click.option("--live", is_flag=True, help="Have the running fleet follow, without ending a request.")
"""`--live`, passed to the command as `live: bool`."""


def require_fleet(zoo: Path) -> None:
    """Raise NotRunning if no fleet runs that could follow: to be asked before the zoo is changed."""
    from psserve.fleet.run.state import running_fleet

    running_fleet(zoo)


def change_live(
    zoo: Path,
    command: ChangeCommand,
    module: str | None = None,
    *,
    version: int | None = None,
    share: float = 0.0,
    shadow: bool = False,
) -> None:
    """Have the fleet make a change and wait for it, telling on stderr how far it is. Raises FleetError."""
    from psserve.fleet.observe.control import change_fleet
    from psserve.fleet.run.protocol import ChangeRequest

    try:
        request = ChangeRequest(command=command, module=module, version=version, share=share, shadow=shadow)
        done = change_fleet(zoo, request, _tell)
    except KeyboardInterrupt:
        _tell("the change goes on without you: `psserve status` and `psserve logs supervisor` show it")
        raise
    _tell(done)


def follow_live(zoo: Path, command: ChangeCommand, module: str) -> None:
    """`change_live` after the zoo was changed. Raises FleetError, which says that it was."""
    try:
        change_live(zoo, command, module)
    except NotRunning as error:
        raise NotRunning(f"the zoo is changed, but the fleet has ended meanwhile: {error}") from error
    except FleetError as error:
        raise FleetError(
            f"{error}: the zoo is changed, and the fleet serves as before; when the cause is gone: `psserve reload`"
        ) from error


def follow_update(zoo: Path, module: str, live: bool) -> None:
    """Have the fleet follow if that is wanted (`live`), after the zoo's module has other weights; else say if it could.

    Raises FleetError.
    """
    from .served import served_states

    served = module in served_states(zoo)
    if live:
        follow_live(zoo, "update" if served else "add", module)
    elif served:
        click.echo("note: the running fleet goes on with the old weights; `psserve reload` replaces them", err=True)


def _tell(text: str) -> None:
    click.echo(f"fleet: {text}", err=True)
