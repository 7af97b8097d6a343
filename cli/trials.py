"""A module's new version on trial beside the present one: brought, measured, promoted, or taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psserve.errors import NotRunning, PsserveError, UnknownModule, UsageError, VersionRefused

from .interruption import ended_as_by_ctrl_c

if TYPE_CHECKING:
    from psserve.training.conversation import Conversation
    from psserve.training.scorers import Scorer
    from psserve.zoo import Zoo


@dataclass(frozen=True)
class Required:
    """The accuracy, 0 to 1, that a version must have on held-out items before it answers anybody."""

    accuracy: float
    data: Sequence[Path]
    items: Sequence[Conversation]
    scorer_name: str
    scorer: Scorer
    max_tokens: int


def read_required(accuracy: float | None, data: Sequence[Path], scorer: str | None, max_tokens: int) -> Required | None:
    """What `--require-accuracy` and its options ask for, with the items read. Raises UsageError, DataError."""
    if accuracy is None:
        return None
    if not data or not scorer:
        raise UsageError("--require-accuracy needs --data and --scorer, as `psserve evaluate` does")
    from psserve.training.packages import quiet_packages

    quiet_packages()
    from psserve.training.data import read_conversations
    from psserve.training.scorers import SCORERS

    items = read_conversations(data)
    SCORERS[scorer].check_items(items)
    return Required(accuracy, data, items, scorer, SCORERS[scorer], max_tokens)


def begin_trial(
    zoo: Zoo, name: str, version: int, required: Required | None, *, share: float = 0.0, shadow: bool = False
) -> None:
    """Bring a version of the module `name`, have it prove itself if that is required, and give it its share (percent).

    In the `shadow` it answers copies of the other sessions' requests. Raises FleetError, VersionRefused or
    TrainingError.
    """
    from .live import change_live

    if required is not None:
        change_live(zoo.path, "try", name, version=version)
        _measure(zoo, name, version, required)
    if share or shadow:
        change_live(zoo.path, "try", name, version=version, share=share, shadow=shadow)


def end_trial(zoo: Path, name: str) -> bool:
    """End the trial of a version of the module `name`, if there is one: in the zoo's fleet, or for the next one.

    Returns whether there was one. Raises FleetError.
    """
    from psserve.fleet.plan.layout import run_dir
    from psserve.fleet.run.trials import forget_trial, kept_trial

    from .live import change_live
    from .served import versions_served

    kept = kept_trial(run_dir(zoo), name)
    if kept is None and versions_served(zoo, name).tried is None:
        return False
    try:
        change_live(zoo, "withdraw", name)
    except NotRunning:
        if kept is None:
            raise
        forget_trial(run_dir(zoo), name)
        click.echo(f"{kept} is on trial no more", err=True)
    return True


def require_no_trial(zoo: Path, name: str) -> None:
    """Raise UsageError if the zoo's running fleet has a version of a module on trial already."""
    from .served import versions_served

    if (version := versions_served(zoo, name).tried) is not None:
        require_judged(zoo, name, version)
        raise UsageError(f"version {version} of {name} is on trial: `psserve promote` or `psserve rollback` it first")


def require_judged(zoo: Path, name: str, version: int) -> None:
    """Raise UsageError if the accuracy of a version of a module is still being measured in the zoo's running fleet."""
    from .served import versions_served

    served = versions_served(zoo, name)
    if served.is_measured and served.tried == version:
        raise UsageError(
            f"the accuracy of version {version} of {name} is being measured, and `psserve update-model` decides by it:"
            f" wait for that, or end it with `psserve rollback {name}`"
        )


@contextmanager
def taken_back_on_failure(zoo: Zoo, name: str, version: int) -> Iterator[None]:
    """Let a version of the module `name` leave the fleet and the zoo if this fails, or is ended by a signal.

    What then stays all the same is said on stderr.
    """
    with ended_as_by_ctrl_c():
        try:
            yield
        except BaseException:  # Ctrl-C as well: what nobody has accepted must not stay
            _take_back(zoo, name, version)
            raise


def _take_back(zoo: Zoo, name: str, version: int) -> None:
    from .live import change_live

    called = f"{name}@{version}"
    withdraw = partial(change_live, zoo.path, "withdraw", name, version=version)
    with suppress(KeyboardInterrupt):  # whoever waits no longer does not stop it
        _attempt(withdraw, f"{called} stays on trial until `psserve rollback {name}`")
    delete = partial(zoo.remove_version, name, version)
    _attempt(delete, f"{called} stays in the zoo until `psserve remove-model {called}`")


def _attempt(step: Callable[[], None], otherwise: str) -> None:
    """Take a step that no failure may keep the next one from; `otherwise`: what is then said on stderr."""
    try:
        step()
    except (NotRunning, UnknownModule):  # there is nothing left to end
        pass
    except (PsserveError, OSError) as error:
        with suppress(OSError):  # the terminal may be what has gone
            click.echo(f"warning: {otherwise}: {error}", err=True)


def _measure(zoo: Zoo, name: str, version: int, required: Required) -> None:
    """Have the version on trial answer the items. Raises VersionRefused, TrainingError."""
    from psserve.fleet.observe.control import access_of
    from psserve.fleet.run.state import running_fleet
    from psserve.training.fleet_answers import FleetAnswerer
    from psserve.training.scorers import evaluate

    from .recording import Recorder

    called, url = f"{name}@{version}", running_fleet(zoo.path).url
    click.echo(f"{called}: {len(required.items)} items", err=True)
    access = access_of(zoo.path)
    answerer = FleetAnswerer(url, called, access.api_key, certificate=access.certificate)
    score = evaluate(answerer, required.items, required.scorer, required.max_tokens)
    found = f"version {version} of {name} has {score.right} of {score.total} right ({score.share:.4f})"
    if score.share < required.accuracy:
        raise VersionRefused(f"{found}, and {required.accuracy:g} is required: {_refusal(zoo, name, version)}")
    click.echo(f"{found}; {required.accuracy:g} is required", err=True)
    recorder = Recorder(zoo.path, url, required.scorer_name, required.data, required.max_tokens)
    recorder.record(called, score, answerer.versions)


def _refusal(zoo: Zoo, name: str, version: int) -> str:
    """What becomes of a version that is not good enough."""
    present = zoo.module(name).version
    if present == version:
        return f"but it has become {name} meanwhile: `psserve rollback {name} --live` goes back"
    return f"refused, and version {present} stays"
