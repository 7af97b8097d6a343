"""The whole run: Ctrl-C works in what tests start, long files begin first, slow ones are marked; a clock.

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
    "e2e/test_gpu_first.py",
    "e2e/test_demo_zoo.py",
    "e2e/test_live.py",
    "e2e/test_faults.py",
    "e2e/test_hosts.py",
    "e2e/test_bases.py",
    "e2e/test_engine_modes.py",
    "e2e/test_exactness.py",
    "e2e/test_adapters.py",
    "e2e/test_systems.py",
    "e2e/test_transfer_faults.py",
    "e2e/test_cli.py",
    "e2e/test_versions.py",
    "e2e/test_shutdown.py",
    "e2e/test_one_pool.py",
    "training/test_distributed.py",
    "training/test_finetune.py",
    "router/test_cut_off.py",
    "router/workers/test_upstream.py",
    "fleet/live/test_supervisor.py",
    "fleet/test_live.py",
    "fleet/test_trials.py",
    "demo/test_demo_zoo.py",
    "demo/test_accuracy.py",
    "fleet/plan/test_machines.py",
    "bench/report/test_write.py",
    "test_wheel.py",
    "zoo/test_crash.py",
    "zoo/test_changes.py",
)
"""What takes longest, or waits most: beside it the others run (a process of pytest-xdist takes file after file), and
short files are left for the end, so that all processes have work until then."""


SLOW = (
    "bench/compare/",
    "bench/report/test_write.py",
    "cli/test_finetune_command.py",
    "demo/",
    "engine/",
    "fleet/live/",
    "fleet/manifests/test_group.py",
    "fleet/ray/test_agent.py",
    "fleet/test_live.py",
    "fleet/test_live_adapters.py",
    "fleet/test_trials.py",
    "router/test_dashboard_page.py",
    "router/test_kept_model.py",
    "router/test_load_faults.py",
    "router/test_process.py",
    "router/test_processes.py",
    "router/test_task_tfidf.py",
    "test_conftest.py",
    "test_examples.py",
    "test_model_zoo.py",
    "test_wheel.py",
    "training/",
    "zoo/checkpoints/test_fine_tunes.py",
    "zoo/checkpoints/test_lora.py",
    "zoo/checkpoints/test_quantisation_sglang.py",
    "zoo/checkpoints/test_serving_form.py",
    "zoo/test_changes.py",
    "zoo/test_crash.py",
    "zoo/test_quantised_modules.py",
)
"""What trains, computes with models or SGLang's parts, or starts fleets of fake servers and other programs again and
again. `make test-fast` leaves it out, and does not even import it. A single slow test elsewhere is marked itself."""
FAST = "engine/handover"
"""In spite of that: the heart."""


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # torch is not imported yet
    # A shell that starts pytest in the background has it ignore SIGINT, and all that tests start would ignore it, too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest looks at marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _rank(_name(item.path)))
    for item in items:
        in_its_folder = _name(item.path).startswith("e2e/") or not item.get_closest_marker("e2e")
        assert in_its_folder, f"{item.nodeid}: not in tests/e2e"
        if _is_slow(item.path):
            item.add_marker(pytest.mark.slow)
        if config.option.markexpr != "gpu" and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU: make test-gpu"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.option.markexpr == "not slow" and _is_slow(collection_path) else None


def _is_slow(path: Path) -> bool:
    return _name(path).startswith(SLOW) and not _name(path).startswith(FAST)


def _name(path: Path) -> str:
    return path.relative_to(Path(__file__).parent).as_posix()


def _rank(name: str) -> int:
    """Files of `FIRST`, other files with real servers, all else; within these as they were."""
    return FIRST.index(name) if name in FIRST else len(FIRST) + (not name.startswith("e2e/"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as its only element, for whoever asks for `time.monotonic`."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now
