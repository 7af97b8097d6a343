from __future__ import annotations

import inspect
import re

import pytest

from psserve import errors

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.PsserveError)]


def drawn() -> dict[str, str]:
    """Error -> parent, as the tree at the top of errors.py draws them."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[| ]   )*)([|`]-- )?(\w+)", line)
        if not match:
            continue
        depth = len(match[1]) // 4 + bool(match[2])
        if depth:
            parents[match[3]] = path[depth - 1]
        path[depth:] = [match[3]]
    return parents


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {kind.__name__: kind.__base__.__name__ for kind in ALL if kind is not errors.PsserveError and kind.__base__}
    assert drawn() == real


@pytest.mark.parametrize("kind", ALL)
def test_every_error_has_a_docstring_of_its_own(kind: type) -> None:
    assert kind.__doc__
    assert kind.__doc__ not in {base.__doc__ for base in kind.__mro__[1:]}


@pytest.mark.parametrize("kind", ALL)
def test_usage_errors_alone_exit_with_2(kind: type[errors.PsserveError]) -> None:
    assert kind.exit_code == (2 if issubclass(kind, errors.UsageError) else 1)


def test_request_error_body_is_openais() -> None:
    error = errors.RequestError(404, "no model 'x'", param="model", code="model_not_found", retry_after=3)
    assert error.body() == {
        "error": {
            "message": "no model 'x'",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    assert (error.status, error.retry_after) == (404, 3)
