"""Trainings side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from psserve.demo.pool import progress_in, side_by_side
from psserve.errors import TrainingError
from tests.waiting import until

PATIENCE_S = 300


def with_threads(text: str) -> tuple[str, int]:
    return text.upper(), torch.get_num_threads()


def begin(directory: Path, name: str) -> str:
    """A job that leaves a file; those called "long" last until they are ended, and "wrong" fails beside one."""
    (directory / name).touch()
    if name.startswith("long"):
        time.sleep(2 * PATIENCE_S)
    if name == "wrong":
        until((directory / "long").exists, PATIENCE_S)
        raise TrainingError("no")
    return name.upper()


def test_each_argument_comes_with_its_result_from_processes_that_share_this_ones_threads() -> None:
    torch.set_num_threads(4)
    assert dict(side_by_side(with_threads, "abc", 2)) == {"a": ("A", 2), "b": ("B", 2), "c": ("C", 2)}


def test_an_error_ends_the_other_jobs_and_begins_no_more(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no"):
        list(side_by_side(partial(begin, tmp_path), ["long", "wrong", "next"], 2))
    assert {path.name for path in tmp_path.iterdir()} == {"long", "wrong"}


def test_ctrl_c_ends_all_jobs_and_begins_no_more(tmp_path: Path) -> None:
    program = (
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from psserve.demo.pool import side_by_side\n"
        "from tests.demo.test_pool import begin\n"
        "if __name__ == '__main__':\n"
        f"    list(side_by_side(partial(begin, Path({str(tmp_path)!r})), ['long', 'long too', 'next'], 2))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL, start_new_session=True)
    until((tmp_path / "long").exists, PATIENCE_S)
    until((tmp_path / "long too").exists, PATIENCE_S)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(PATIENCE_S) != 0
    assert {path.name for path in tmp_path.iterdir()} == {"long", "long too"}


def test_progress_goes_to_the_end_of_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for text in ("one", "two"):
        with progress_in(log):
            print(text, file=sys.stderr)
    assert log.read_text() == "one\ntwo\n"
