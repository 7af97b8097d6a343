"""The whole run: Ctrl-C works in what tests start, slow files begin first, those that train are marked; a clock.

Tests marked `gpu` run with `-m gpu` alone; for all others there is no GPU, whatever the machine has.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("psserve", deadline=None)  # a machine that is busy fails no test
settings.load_profile("psserve")

FIRST = (
    "e2e/test_live.py",
    "e2e/test_demo_zoo.py",
    "e2e/test_faults.py",
    "e2e/test_bases.py",
    "e2e/test_gpu_first.py",
    "e2e/test_exactness.py",
    "e2e/test_transfer_faults.py",
    "e2e/test_engine_modes.py",
    "e2e/test_cli.py",
    "training/test_distributed.py",
    "training/test_finetune.py",
)
"""What takes longest, or waits most: beside it the others run (a process of pytest-xdist takes file after file)."""


SLOW = (
    "demo/",
    "test_model_zoo.py",
    "training/test_cache_conditioned.py",
    "training/test_distributed.py",
    "training/test_finetune.py",
    "training/test_reference.py",
    "zoo/checkpoints/test_fine_tunes.py",
)
"""What trains, or computes with whole models; `make test-fast` leaves it out."""


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # torch is not imported yet
    # A shell that starts pytest in the background has it ignore SIGINT, and all that tests start would ignore it, too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest looks at marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _rank(_name(item)))
    for item in items:
        assert not item.get_closest_marker("e2e") or _name(item).startswith("e2e/"), f"{item.nodeid}: not in tests/e2e"
        if _name(item).startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if config.option.markexpr != "gpu" and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU: make test-gpu"))


def _name(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).as_posix()


def _rank(name: str) -> int:
    """Files of `FIRST`, other files with real servers, all else; within these as they were."""
    return FIRST.index(name) if name in FIRST else len(FIRST) + (not name.startswith("e2e/"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as its only element, for whoever asks for `time.monotonic`."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now
