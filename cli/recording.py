"""Writing what `psserve evaluate` found into the manifests of the zoo whose modules answered."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psserve.errors import FleetError, PsserveError, ZooError

from .waiting import when_free

if TYPE_CHECKING:
    from psserve.training.scorers import Score
    from psserve.zoo import Zoo
    from psserve.zoo.disk.model import Module


@dataclass(frozen=True)
class Recorder:
    """Records scores by `scorer` on the files `data`, of answers of at most `max_tokens` tokens.

    `url` is the fleet that answered, None for the reference.
    """

    zoo_dir: Path | None
    url: str | None
    scorer: str
    data: Sequence[Path]
    max_tokens: int

    def record(self, name: str, score: Score, answered: Collection[str | None] = ()) -> None:
        """Record a score of the module, alias or version `name`, or say on stderr why it is not recorded.

        `answered`: which versions a fleet said that its answers are of; None among them if it did not say.
        Not to record is no failure: the score may have taken hours, and is printed all the same.
        """
        from psserve.training.run_folder import data_hash
        from psserve.zoo import Zoo, find_zoo
        from psserve.zoo.disk.manifest import EvaluationRecord

        try:
            zoo = Zoo.open(find_zoo(self.zoo_dir))
            if name == zoo.base.name:
                return
            module = zoo.module(name)
            if self.url:
                require_answered(self.url, zoo, module)
                require_version(zoo, module, answered)
            evaluation = EvaluationRecord(
                date=int(time.time()),
                scorer=self.scorer,
                data_hash=data_hash(self.data),
                items=score.total,
                right=score.right,
                max_tokens=self.max_tokens,
                how="fleet" if self.url else "reference",
            )
            when_free(partial(zoo.record_evaluation, module.versioned_name, evaluation))
        except (PsserveError, OSError) as error:
            click.echo(f"note: the score of {name} is not recorded: {error}", err=True)


def pinned(zoo: Zoo, name: str) -> str:
    """The module, alias or version `name` as the version that it is now: another may be the module before it is scored.

    The base has no versions.
    """
    return name if name == zoo.base.name else zoo.module(name).versioned_name


def require_answered(url: str, zoo: Zoo, module: Module) -> None:
    """Raise FleetError unless the fleet at `url` is this zoo's, and serves the weights that `module` has now."""
    from psserve.fleet.observe.control import is_at
    from psserve.fleet.run.state import running_fleet

    from .served import versions_served

    fleet = running_fleet(zoo.path)
    if not is_at(fleet, url):
        raise FleetError(f"{url} is not the fleet of the zoo {zoo.path}, which is at {fleet.url}")
    served = versions_served(zoo.path, module.name)
    if served.tried == module.version:
        return
    started = [server.started or 0.0 for server in fleet.servers if server.module == module.name]
    is_older = min(started) < module.created if started else served.present is None  # adapters have none of their own
    if is_older or served.present not in (module.version, None):
        raise ZooError(f"the fleet at {url} serves other weights than those in {module.path}")


def require_version(zoo: Zoo, module: Module, answered: Collection[str | None]) -> None:
    """Raise ZooError unless all answers of the zoo's fleet are of the version that `module` is."""
    from .served import versions_served

    if set(answered) == {str(module.version)}:
        return
    if None in answered or not answered:
        raise ZooError("the answers do not say which version gave them")
    came = sorted(filter(None, answered))
    served = sorted(str(version) for version in versions_served(zoo.path, module.name).numbers)
    names = " or ".join(f"{module.name}@{version}" for version in served or came)
    what = "version" if len(came) == 1 else "versions"
    raise ZooError(f"answers came from {what} {' and '.join(came)}: evaluate {names}")
