"""What was measured on GPUs, and what plans make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from psserve.fleet.plan.layout import measured_path, run_dir
from psserve.fleet.plan.measured import note_measured, read_measured
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import gpus, plan

MIB = 1024**2


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    zoo = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
    run_dir(zoo.path).mkdir(parents=True)
    return zoo


def test_a_plan_counts_with_what_servers_of_the_kind_took(zoo: Any) -> None:
    estimated = {server.name: server.memory for server in plan(zoo, gpus(1)).servers}
    assert estimated["decode-math-0"].kind == estimated["decode-code-0"].kind != estimated["prefill-0"].kind
    note_measured(run_dir(zoo.path), {estimated["decode-math-0"].kind: 10_000 * MIB})
    corrected = {server.name: server.memory for server in plan(zoo, gpus(1)).servers}
    assert corrected["prefill-0"].overhead_bytes == estimated["prefill-0"].overhead_bytes
    for name in ("decode-math-0", "decode-code-0"):
        assert 11_000 * MIB < corrected[name].overhead_bytes < 12_000 * MIB  # a tenth and its activations more
    assert corrected["prefill-0"].kv_tokens < estimated["prefill-0"].kv_tokens


def test_servers_with_other_settings_are_estimated(zoo: Any) -> None:
    known = plan(zoo, gpus(1)).servers[1].memory
    note_measured(run_dir(zoo.path), {known.kind: 10_000 * MIB})
    for changes in ({"max_running_requests": 8}, {"context_length": 512}):
        assert plan(zoo, gpus(1), **changes).servers[1].memory.overhead_bytes < 10_000 * MIB


def test_the_most_that_was_seen_is_kept(tmp_path: Path) -> None:
    note_measured(tmp_path, {"a": 100, "b": 100})
    note_measured(tmp_path, {"a": 50, "b": 200, "c": -5})
    assert read_measured(tmp_path) == {"a": 110, "b": 220}


@pytest.mark.parametrize("text", ["", "[]", '{"a": "much"}', '{"a": -1}', '{"a": 1', "\xff"])
def test_a_damaged_file_is_measured_again(tmp_path: Path, text: str) -> None:
    measured_path(tmp_path).write_bytes(text.encode("latin-1"))
    assert read_measured(tmp_path) == {}
    note_measured(tmp_path, {"a": 100})
    assert read_measured(tmp_path) == {"a": 110}
