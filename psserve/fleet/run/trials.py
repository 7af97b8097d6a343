"""The trials that a fleet has, in a file that outlives it: the next fleet takes them up again, or says why not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from psserve.contracts.router_config import ModuleConfig
from psserve.errors import FleetError
from psserve.fleet.plan.layout import trials_path
from psserve.zoo.disk.storage import write_atomically


class KeptTrial(BaseModel):
    """A version of a module that is, or was, on trial."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    module: str
    version: int
    """The zoo's number of it."""
    beside: int | None
    """That of the version that it is on trial beside."""
    share: float
    """Percent of the sessions that it answers."""
    shadow: bool
    """Whether it answers copies of the other sessions' requests."""

    def __str__(self) -> str:
        return f"version {self.version} of {self.module}"


_TRIALS = TypeAdapter(tuple[KeptTrial, ...])


def keep_trials(run: Path, modules: Iterable[ModuleConfig]) -> None:
    """Write down what is on trial among what a router was told of modules; no file if nothing is. Raises OSError.

    A version that nobody has given a share or a shadow is only being measured, and is not kept.
    """
    _write(run, [_kept(module) for module in modules if module.trial and (module.trial.share or module.trial.shadow)])


def kept_trials(run: Path) -> tuple[KeptTrial, ...]:
    """What was written down last. Raises FleetError: the file is damaged."""
    path = trials_path(run)
    try:
        return _TRIALS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise FleetError(f"{path} is damaged: remove it, and the versions that were on trial are no more") from error


def kept_trial(run: Path, module: str) -> KeptTrial | None:
    """That of one module, if it has one. Raises FleetError as `kept_trials`."""
    return next((trial for trial in kept_trials(run) if trial.module == module), None)


def forget_trial(run: Path, module: str) -> None:
    """Let no fleet take up that of a module. Raises FleetError as `kept_trials`, OSError."""
    _write(run, [trial for trial in kept_trials(run) if trial.module != module])


def _kept(module: ModuleConfig) -> KeptTrial:
    assert module.trial is not None
    trial = module.trial
    return KeptTrial(
        module=module.name,
        version=trial.zoo_version,
        beside=module.zoo_version,
        share=trial.share,
        shadow=trial.shadow,
    )


def _write(run: Path, trials: list[KeptTrial]) -> None:
    path = trials_path(run)
    if trials:
        write_atomically(path, _TRIALS.dump_json(tuple(trials), indent=1) + b"\n", 0o600)
    else:
        path.unlink(missing_ok=True)
