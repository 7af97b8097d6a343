from __future__ import annotations

import io

import pytest

from psserve.zoo.disk.progress import StreamProgress
from tests.terminal import Terminal


def test_what_is_done_within_a_second_is_not_shown(clock: list[float]) -> None:
    for stream in (io.StringIO(), Terminal()):
        with StreamProgress(stream) as shown:
            shown.stage("hashing", 10)
            shown.advance(10)
        assert stream.getvalue() == ""


def test_without_a_terminal_a_line_comes_now_and_then(clock: list[float]) -> None:
    stream = io.StringIO()
    with StreamProgress(stream) as shown:
        shown.stage("hashing", 4_000_000_000)
        for clock[0] in (5.0, 10.0, 12.0, 20.0):
            shown.advance(1_000_000_000)
    assert stream.getvalue().splitlines() == [
        "hashing: 2.0 of 4.0 GB, 0.20 GB/s",
        "hashing: 4.0 of 4.0 GB, 0.20 GB/s",
    ]


def test_on_a_terminal_a_bar_is_drawn_and_taken_away(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with StreamProgress(stream) as shown:
        shown.stage("hashing", 100)
        clock[0] = 2.0
        shown.advance(50)
    assert "hashing" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[2K")  # the line is cleared


def test_a_new_stage_begins_at_nothing(clock: list[float]) -> None:
    stream = io.StringIO()
    with StreamProgress(stream) as shown:
        shown.stage("checking", 100)
        shown.advance(100)
        shown.stage("copying", 1_000_000_000)
        clock[0] = 11.0
        shown.advance(500_000_000)
    assert stream.getvalue() == "copying: 0.5 of 1.0 GB, 0.05 GB/s\n"
