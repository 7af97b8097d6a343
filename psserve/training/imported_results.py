"""What holds for the results file of any other evaluation program."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from psserve.errors import DataError
from psserve.zoo.disk.manifest import first_problem

Results = TypeVar("Results", bound=BaseModel)


def read_results(path: Path, kind: type[Results], program: str, wanted: str) -> Results:
    """The results file `path`; DataError says what it is not. `wanted`: which file of the program to give."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}: give {wanted}") from None
    except ValidationError as error:
        raise DataError(f"{path}: {first_problem(error)}: not a results file of {program}") from None


def check_subject(path: Path, model: str | None, names: tuple[str, ...], *, is_older: bool) -> None:
    """Raise DataError unless results are of a model that is called one of `names`, and of the weights it has now."""
    if model not in names:
        raise DataError(f"{path}: of the model {model!r}, not of {names[0]!r}")
    if is_older:
        raise DataError(f"{path}: older than the weights that module {names[0]!r} has now: evaluate it again")
