"""How long a fleet may take to start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psserve.fleet import FleetPlan
from psserve.fleet.plan.start_limit import start_limit_s, weight_bytes
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import CPU, GIB, gpus, plan


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    return FakeZoo(tmp_path, FakeBase(tmp_path / "base"))


def limit(made: FleetPlan) -> float:
    return start_limit_s(made.basis, made.servers)


def test_a_tiny_fleet_on_cpu_has_five_minutes(zoo: Any) -> None:
    assert round(limit(plan(zoo)), 1) == 300.1


def test_kernels_may_be_compiled_on_gpus(zoo: Any) -> None:
    assert round(limit(plan(zoo, gpus(1)))) == 900


def test_more_to_read_takes_longer_and_replicas_read_the_same(zoo: Any) -> None:
    large: Any = replace(zoo, base=replace(zoo.base, weight_bytes=16 * 10**9, dtype="bfloat16"))
    machine = replace(CPU, total_bytes=1024 * GIB)
    once = plan(large, machine, {"dtype": "bfloat16"})
    twice = plan(large, machine, {"dtype": "bfloat16", "prefill": {"replicas": 2}, "decode": {"replicas": 2}})
    assert weight_bytes(once.servers) == weight_bytes(twice.servers) == 3 * 16 * 10**9
    assert limit(once) == limit(twice) == 300 + 240


def test_what_the_user_says_counts(zoo: Any) -> None:
    assert limit(plan(zoo, gpus(1), {"start_timeout_secs": 42.0})) == 42.0


def test_the_router_waits_as_long_for_a_first_answer(zoo: Any) -> None:
    assert plan(zoo).router.config.start_timeout_s == 600.0
    made = plan(zoo, gpus(1))
    assert made.router.config.start_timeout_s == limit(made)
