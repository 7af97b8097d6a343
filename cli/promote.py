"""`psserve promote`: the version on trial takes the module's place."""

from __future__ import annotations

from pathlib import Path

import click

from psserve.errors import UsageError

from .completion import complete_module
from .options import zoo_option
from .update_model import keep_option


@click.command("promote")
@click.argument("name", shell_complete=complete_module)
@keep_option
@zoo_option
def command(name: str, keep_versions: int, zoo_dir: Path | None) -> None:
    """Give the place of the module NAME (not an alias) to the version that `update-model --canary` has put on trial.

    All requests get it from now on; the servers of the other one end after their last request. No request fails. The
    other one stays as a version, to which `psserve rollback` goes back. A version whose accuracy `update-model
    --require-accuracy` is still measuring is refused.

    \b
    Example:
      psserve promote math
    """
    from psserve.zoo import Zoo, find_zoo

    from .live import follow_live, require_fleet
    from .served import versions_served
    from .trials import require_judged

    zoo = Zoo.open(find_zoo(zoo_dir))
    zoo.check_own_name(name)
    require_fleet(zoo.path)
    version = versions_served(zoo.path, name).tried
    if version is None:
        raise UsageError(f"no version of {name} is on trial: begin one with `psserve update-model {name} --canary 10`")
    require_judged(zoo.path, name, version)
    zoo.roll_back(name, version, keep_versions)
    click.echo(f"version {version} is {name} now in {zoo.path}", err=True)
    follow_live(zoo.path, "update", name)
