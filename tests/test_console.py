"""Consoles and tables, on terminals and in pipes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.console import console, printable, show, table
from tests.terminal import Terminal

LONG = "x" * 300


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


def shown(stream: io.StringIO) -> str:
    show(table(["server", "up"], [["a", "7 s"], [LONG, "10 s"]], {"a": "green"}), console(stream))
    return stream.getvalue()


def test_a_pipe_gets_whole_lines_without_colours() -> None:
    heading, first, second = shown(io.StringIO()).splitlines()
    assert heading.split() == ["server", "up"]
    assert (first.split(), first.rstrip()) == (["a", "7", "s"], first)
    assert second.split() == [LONG, "10", "s"]


def test_a_terminal_gets_colours_and_its_width() -> None:
    lines = shown(Terminal()).splitlines()
    assert "\x1b[32ma" in lines[1]
    assert max(len(printable(line)) for line in lines) <= 80


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in shown(Terminal())


def test_what_others_wrote_is_no_markup_and_stays_on_its_line() -> None:
    out = io.StringIO()
    console(out).print(table(["name"], [["[bold]a\n\x1b[2Jb[/]"]]))
    assert out.getvalue().splitlines()[1].rstrip() == "[bold]a b[/]"


@pytest.mark.parametrize(
    "escape", ["\x1b[31m", "\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;u\x1b\\", "\x1bM", "\x9b1m", "\r"]
)
def test_escape_sequences_go(escape: str) -> None:
    assert printable(f"a{escape}b").replace("1m", "") == "ab"


@given(st.text())
def test_printable_leaves_nothing_that_steers(text: str) -> None:
    assert not [char for char in printable(text) if char < " " and char not in "\t\n"]
