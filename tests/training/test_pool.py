"""Trainings side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from psserve.training.pool import progress_in, training_pool


def test_processes_share_this_ones_threads() -> None:
    torch.set_num_threads(4)
    with training_pool(2) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2


def test_progress_goes_to_the_end_of_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for text in ("one", "two"):
        with progress_in(log):
            print(text, file=sys.stderr)
    assert log.read_text() == "one\ntwo\n"
