"""What holds for the whole run of tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import FAST, FIRST, SLOW

ROOT = Path(__file__).parent.parent
TEST = "tests/scripts/test_gpu_first.py"


def test_tests_on_cpu_see_no_gpu() -> None:
    assert not torch.cuda.is_available()


@pytest.mark.parametrize(("marks", "skipped"), [((), True), (("-m", "gpu"), False)])
def test_tests_that_need_a_gpu_run_only_where_asked_for(marks: tuple[str, ...], skipped: bool) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--setup-only", "-k", "this_gpu", *marks, TEST]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert "test_a_small_fleet_serves_right_on_this_gpu" in done.stdout or skipped
    assert ("1 skipped" in done.stdout) is skipped


def test_slow_files_are_not_even_collected_where_none_is_asked_for() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", "-m", "not slow"]
    folders = ["tests/demo", "tests/contracts/test_sse.py"]
    done = subprocess.run([*command, *folders], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert "tests/contracts/test_sse.py::" in done.stdout
    assert "tests/demo" not in done.stdout
    assert "deselected" not in done.stdout


def test_files_that_are_named_are_there() -> None:
    assert [name for name in (*FIRST, *SLOW, FAST) if not (ROOT / "tests" / name).exists()] == []
