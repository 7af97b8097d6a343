"""What routing must achieve on simulated prefill servers: counts, no timing."""

from __future__ import annotations

import pytest

from psserve.bench.simulator.simulation import SimulatedRun
from psserve.contracts.router_config import PolicyName
from scripts.bench_routing import SERVERS, Case, figures, make_sessions, oracle_tokens, run

QUICK = Case(kv_tokens=100_000, sessions=60, sessions_per_s=1.0, turns=(3, 6), task=(300, 2_000))


@pytest.fixture(scope="module")
def oracle() -> int:
    return oracle_tokens(QUICK)


@pytest.fixture(scope="module")
def prefix() -> SimulatedRun:
    return run(QUICK, "prefix")


def busy_s(outcome: SimulatedRun) -> float:
    return sum(outcome.busy_s[:SERVERS])


def test_prefix_routing_gets_nearly_all_hits_that_an_oracle_gets(prefix: SimulatedRun, oracle: int) -> None:
    assert prefix.counters.cached_tokens / oracle >= 0.95


def test_prefix_routing_keeps_servers_evenly_busy(prefix: SimulatedRun, oracle: int) -> None:
    assert figures(prefix, oracle)["imbalance"] <= 1.3


def test_prefix_routing_beats_policies_that_do_not_look(prefix: SimulatedRun) -> None:
    blind = run(QUICK, "round-robin")
    assert prefix.counters.cached_tokens > 1.05 * blind.counters.cached_tokens
    assert busy_s(prefix) < 0.6 * busy_s(blind)


def test_a_replay_is_the_same_every_time(prefix: SimulatedRun) -> None:
    assert run(QUICK, "prefix") == prefix


@pytest.mark.parametrize("policy", ["prefix", "session"])
def test_every_request_is_served_and_every_token_counted(policy: PolicyName, oracle: int) -> None:
    outcome, sessions = run(QUICK, policy), list(make_sessions(QUICK))
    assert outcome.counters.requests == len(outcome.records) == sum(len(session.steps) for session in sessions)
    prompts = sum(record.prompt_tokens for record in outcome.records)
    assert outcome.counters.prompt_tokens == prompts
    assert outcome.counters.cached_tokens <= oracle <= prompts
