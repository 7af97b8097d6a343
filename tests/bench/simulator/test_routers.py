"""Several routers, each of which knows its own sessions alone, find nearly all that one cache of all would have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from psserve.bench.simulator.asked import published
from psserve.bench.simulator.simulation import FleetLoad, SimulatedRun, simulate_cells
from psserve.bench.simulator.system import Setup
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.contracts.router_config import PolicyName
from psserve.errors import UsageError
from tests.bench.simulator.sessions import setup

BASIS = published("Llama-3.1-8B", "A100-80G", None, None, None)
LOAD = FleetLoad(workload=WorkloadChoice(preset="react"), sessions=200, concurrency=24)
FLEET = replace(setup("shared"), costs=BASIS.costs, kv_tokens=BASIS.kv_tokens)


def run(made: Setup) -> SimulatedRun:
    return simulate_cells(made, LOAD, 1)[0]


def hits(made: Setup) -> float:
    """Of all tokens of prompts, the part that was cached."""
    counters = run(made).counters
    return counters.cached_tokens / counters.prompt_tokens


@pytest.fixture(scope="module")
def oracle() -> float:
    """What one server finds that has room for all."""
    return hits(replace(FLEET, prefill=1, kv_tokens=10 * FLEET.kv_tokens))


@pytest.mark.parametrize("policy", ["session", "prefix"])
@pytest.mark.parametrize("routers", [2, 4])
def test_sessions_that_keep_to_a_router_find_what_there_is(oracle: float, policy: PolicyName, routers: int) -> None:
    assert hits(replace(FLEET, routers=routers, prefill_policy=policy)) >= 0.99 * oracle


def test_no_router_is_refused() -> None:
    with pytest.raises(UsageError, match="routers: give at least one"):
        replace(FLEET, routers=0)
