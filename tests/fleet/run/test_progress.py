"""What a launch shows."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from psserve.fleet.run.progress import LiveStartProgress, StartProgress, progress_for
from tests.terminal import Terminal


def member(name: str, state: str) -> Any:
    return SimpleNamespace(spec=SimpleNamespace(name=name), state=state, seconds=2.04)


def test_plain_lines_tell_changes_once() -> None:
    out = io.StringIO()
    progress = progress_for(out)
    for state in ("starting", "starting", "ready", "ready"):
        progress.update([member("prefill-0", state)])
    assert out.getvalue() == "psserve: prefill-0: starting\npsserve: prefill-0: ready after 2.0 s\n"


def test_notes_that_cannot_be_written_are_lost_and_nothing_else() -> None:
    full = open("/dev/full", "w")  # noqa: SIM115 - closing it fails as every write does
    StartProgress(full).note("anybody there?")
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_terminal_gets_a_table_then_lines() -> None:
    out = Terminal()
    progress = progress_for(out)
    assert isinstance(progress, LiveStartProgress)
    progress.update([member("prefill-0", "starting")])
    progress.note("[not markup]")
    progress.update([member("prefill-0", "ready")])
    progress.settle()
    table = out.getvalue()
    assert "seconds" in table
    assert "[not markup]" in table
    progress.update([member("prefill-0", "ready")])
    assert out.getvalue() == table
    progress.update([member("prefill-0", "down")])
    assert out.getvalue() == table + "psserve: prefill-0: down\n"


def test_settling_twice_is_harmless() -> None:
    for progress in (StartProgress(io.StringIO()), LiveStartProgress(Terminal())):
        progress.settle()
        progress.settle()
