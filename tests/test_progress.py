"""Bars on a terminal, lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.progress import BarColumn, TextColumn

from psserve.progress import Bars
from tests.terminal import Terminal


def test_without_a_terminal_there_are_notes_and_a_line_now_and_then(clock: list[float]) -> None:
    stream = io.StringIO()
    with Bars(stream, TextColumn("work"), BarColumn()) as bars:
        bars.add_task("", total=3)
        bars.note("begins")
        for clock[0] in (9.0, 10.0, 19.0, 21.0):
            bars.line(f"at {clock[0]:g} s")
        bars.line("done", last=True)
    assert stream.getvalue().splitlines() == ["psserve: begins", "at 10 s", "at 21 s", "done"]


def test_the_first_line_may_come_at_once(clock: list[float]) -> None:
    stream = io.StringIO()
    with Bars(stream, first_line_s=0.0) as bars:
        for clock[0] in (0.0, 5.0, 10.0):
            bars.line(f"at {clock[0]:g} s")
    assert stream.getvalue().splitlines() == ["at 0 s", "at 10 s"]


def test_on_a_terminal_bars_are_drawn_with_notes_above_them_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Bars(stream, TextColumn("work"), BarColumn()) as bars:
        bars.add_task("", total=3)
        bars.note("begins")
        bars.line("no line", last=True)
    assert "work" in stream.getvalue()
    assert "psserve: begins" in stream.getvalue()
    assert "no line" not in stream.getvalue()
