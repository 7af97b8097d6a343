from __future__ import annotations

from types import SimpleNamespace

import pytest

from psserve.engine.fixes import disconnect


@pytest.mark.parametrize(("rid", "aborted"), [("a", ["a"]), (["a", "b"], ["a", "b"]), (None, [])])
def test_every_request_that_is_forgotten_is_aborted(rid: str | list[str] | None, aborted: list[str]) -> None:
    told: list[str] = []
    manager = SimpleNamespace(abort_request=told.append)
    (hook,) = disconnect.hooks()
    assert hook.function(manager, SimpleNamespace(rid=rid), {"a": object()}) is None
    assert told == aborted
