"""Reading logs that are written, renamed, cut and replaced meanwhile."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.fleet.observe import follow as follow_module
from psserve.fleet.observe.follow import LogFile, LogReader, follow, last_lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "x.log"


@settings(deadline=None)
@given(
    lines=st.lists(st.text("ab", max_size=5), max_size=30),
    ended=st.booleans(),
    count=st.integers(0, 35),
    block=st.integers(1, 40),
)
def test_the_last_lines_are_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ended: bool, count: int, block: int
) -> None:
    log = tmp_path_factory.getbasetemp() / "last-lines.log"
    text = "\n".join(lines) + ("\n" if ended and lines else "")
    log.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow_module, "_BLOCK", block)
        reader = LogReader(log)
        assert reader.last(count) == (text.splitlines()[-count:] if count else [])
        assert reader.new() == []
        reader.close()


def test_what_is_written_later_comes_once(log: Path) -> None:
    log.write_text("a\n")
    reader = LogReader(log)
    assert reader.last(5) == ["a"]
    with log.open("a") as file:
        file.write("b\nc")
    assert reader.new() == ["b"]
    with log.open("a") as file:
        file.write("c\n")
    assert reader.new() == ["cc"]
    reader.close()


def test_nothing_is_lost_when_the_log_is_set_aside(log: Path) -> None:
    log.write_text("old\n")
    reader = LogReader(log)
    reader.last(5)
    with log.open("a") as file:
        file.write("last words")
    log.rename(log.with_name("x.log.1"))
    assert reader.new() == []
    log.write_text("new\n")
    assert reader.new() == ["last words", "new"]
    reader.close()


def test_a_log_that_was_cut_is_read_from_its_beginning(log: Path) -> None:
    log.write_text("a long first line\n")
    reader = LogReader(log)
    reader.last(5)
    log.write_text("b\n")
    assert reader.new() == ["b"]
    reader.close()


def test_a_log_that_comes_later_is_read_whole(log: Path) -> None:
    reader = LogReader(log)
    assert reader.last(5) == []
    log.write_text("a\nb\n")
    assert reader.new() == ["a", "b"]
    reader.close()


def test_progress_bars_and_escapes_are_cleaned(log: Path) -> None:
    log.write_bytes(b"\r 1%\r100%\r\n\x1b[31mred\x1b[0m \xff\n")
    assert [line for _, line in last_lines([LogFile("x", log)], 5)] == ["100%", "red \ufffd"]


def test_follow_goes_on_where_the_last_lines_end_and_takes_up_new_logs(tmp_path: Path) -> None:
    first, second = LogFile("a", tmp_path / "a.log"), LogFile("b", tmp_path / "b.log")
    first.path.write_text("1\n2\n3\n")
    logs = [first]
    lines = follow(lambda: list(logs), 2)
    assert list(islice(lines, 2)) == [("a", "2"), ("a", "3")]
    second.path.write_text("4\n")
    logs.append(second)
    with first.path.open("a") as file:
        file.write("5\n")
    assert list(islice(lines, 2)) == [("a", "5"), ("b", "4")]
