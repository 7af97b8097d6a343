"""Finding the error in a log."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.fleet.run.process import last_error, tail


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            "starting\nTraceback (most recent call last):\n  File\nValueError: bad weights\nKilled\n",
            "ValueError: bad weights",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory.\nshutting down\n", "torch.OutOfMemoryError: CUDA out of memory."),
        ("psserve: error: SGLang 0.5.9 is not supported\n", "psserve: error: SGLang 0.5.9 is not supported"),
        ("[2026-01-01 TP0] \x1b[31mall fine\x1b[0m\n\n", "[2026-01-01 TP0] all fine"),
        ("", "it wrote no log"),
    ],
)
def test_last_error(tmp_path: Path, log: str, expected: str) -> None:
    (tmp_path / "x.log").write_text(log)
    assert last_error(tmp_path / "x.log") == expected


def test_tail_of_a_long_log_is_its_end(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("".join(f"line {i}\n" for i in range(100_000)))
    assert tail(tmp_path / "x.log", 2) == ["line 99998", "line 99999"]


def test_log_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"\xff\xfe\n")
    assert tail(tmp_path / "x.log") == ["\ufffd\ufffd"]


def test_log_without_an_end_has_no_lines() -> None:
    assert tail(Path("/dev/full")) == []  # reads as NULs for ever


def test_missing_log_has_no_lines(tmp_path: Path) -> None:
    assert tail(tmp_path / "none.log") == []


def test_error_of_an_earlier_run_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("ValueError: old\nnew line\n")
    assert last_error(tmp_path / "x.log", since=len("ValueError: old\n")) == "new line"
