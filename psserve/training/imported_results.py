"""What holds for the results file of any other evaluation program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from psserve.errors import DataError
from psserve.zoo.disk.manifest import EvaluationRecord, first_problem
from psserve.zoo.disk.model import Module
from psserve.zoo.disk.versions import versions_during

Results = TypeVar("Results", bound=BaseModel)


@dataclass(frozen=True)
class Found:
    """What a results file says."""

    model: str | None
    """Whom the program asked: a module's name or alias, or one of its versions (NAME@VERSION)."""
    start: float
    """Unix time in seconds: from then to `end` it asked, as far as the file says."""
    end: float
    records: list[EvaluationRecord]
    left_out: tuple[str, ...] = ()
    """What else it says, each with why that is no record."""


def read_results(path: Path, kind: type[Results], program: str, wanted: str) -> Results:
    """The results file `path`; DataError says what it is not. `wanted`: which file of the program to give."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}: give {wanted}") from None
    except ValidationError as error:
        raise DataError(f"{path}: {first_problem(error)}: not a results file of {program}") from None


def check_model(path: Path, found: Found, version: Module) -> None:
    """Raise DataError unless the program asked the module of `version`, or this version of it, as it has been since."""
    names = (version.name, *version.aliases)
    if found.model not in (*names, *versions_named(version)):
        raise DataError(f"{path}: of the model {found.model!r}, not of {version.name!r} or {version.versioned_name!r}")
    if found.end < version.created:
        raise DataError(f"{path}: older than the weights of {version.versioned_name!r}: evaluate it again")


def check_version(path: Path, found: Found, version: Module, module: Module) -> None:
    """Raise DataError unless `version`, and no other, answered. `module` is what the module is now.

    A module's own name does not say which of its versions it was: beside it the file has the time alone.
    """
    if found.model in versions_named(version) or versions_during(module, found.start, found.end) == {version.version}:
        return
    raise DataError(
        f"{path}: of the model {found.model!r} at a time when it may have been another version than {version.version}: "
        f"let the program ask for the model {version.versioned_name!r}, or leave recording out (--no-record)"
    )


def versions_named(version: Module) -> list[str]:
    """What a version is called by each of the module's names: NAME@VERSION."""
    return [f"{name}@{version.version}" for name in (version.name, *version.aliases)]
