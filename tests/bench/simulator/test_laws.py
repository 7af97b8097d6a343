"""What any simulation of these systems must keep, whatever the costs are."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.bench.record import RequestRecord
from psserve.bench.session import Session
from psserve.bench.simulator.costs import DecodeCosts, PrefillCosts, TransferCosts
from psserve.bench.simulator.simulation import SimulatedRun, simulate
from psserve.bench.simulator.system import PAIRED, SHARED, SYSTEMS, SystemName
from tests.bench.simulator.sessions import COSTS, MODULES, agents, one_call, setup

systems = pytest.mark.parametrize("system", SYSTEMS)


@systems
def test_time_in_an_idle_system_is_the_sum_of_its_terms(system: SystemName) -> None:
    prompt, output = 1_000, 50
    (record,) = simulate(setup(system, page_size=16), [one_call("s", prompt, output)], 1).records
    shared, unified = system in SHARED, system not in PAIRED
    read = prompt - shared
    prefill = COSTS.prefill.seconds([(read, 0)])
    copied = read % 16 if system == "one-pool" else read
    sent = 0.0 if unified else COSTS.transfer.seconds(copied * COSTS.kv_bytes)
    steps = output if shared else output - 1
    decode = sum(COSTS.decode.seconds(1, prompt + output - steps + step, 1) for step in range(steps))
    assert record.done_s == pytest.approx(COSTS.router_s + prefill + sent + decode)
    first = COSTS.decode.seconds(1, prompt, 1) if shared else 0.0
    assert record.first_s == pytest.approx(COSTS.router_s + prefill + sent + first)


@systems
def test_the_shortest_request_is_answered(system: SystemName) -> None:
    (record,) = simulate(setup(system), [one_call("s", 1, 1)], 1).records
    assert record.first_s == record.done_s
    assert record.cached_tokens == 0


@systems
def test_the_time_of_a_request_is_the_sum_of_its_spans(system: SystemName) -> None:
    for record in simulate(setup(system, kv_tokens=12_000), agents(30), 10).records:
        spans = sorted(record.spans.values())
        assert spans[0][0] == record.sent_s
        assert all(end == begin for (_, end), (begin, _) in pairwise(spans))
        if record.output_tokens > 1:
            assert spans[-1][1] == record.done_s


@systems
@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 1000), concurrency=st.integers(1, 30), fan=st.integers(1, 4), chunk=st.sampled_from([64, 900])
)
def test_all_that_is_asked_is_done_and_no_token_is_lost(
    system: SystemName, seed: int, concurrency: int, fan: int, chunk: int
) -> None:
    asked = list(agents(20, seed=seed, fan=fan))
    outcome = simulate(setup(system, chunk=chunk, kv_tokens=9_000), asked, concurrency)
    counters = outcome.counters
    calls = [call for session in asked for step in session.steps for call in step.calls]
    assert counters.sessions == len(asked)
    assert counters.requests == len(outcome.records) == len(calls)
    assert counters.output_tokens == sum(call.output_tokens for call in calls)
    assert counters.prompt_tokens == sum(map(prompt_tokens, asked))
    unread = counters.requests if system in SHARED else 0
    assert counters.cached_tokens + counters.computed_tokens == counters.prompt_tokens - unread
    assert counters.cached_tokens == sum(record.cached_tokens for record in outcome.records)


def prompt_tokens(session: Session) -> int:
    context, total = session.system_tokens, 0
    for step in session.steps:
        context += step.new_tokens
        total += context * len(step.calls)
        context += step.calls[0].output_tokens
    return total


def test_one_model_in_all_roles_finds_what_any_role_left_and_adapters_find_their_own() -> None:
    hits = {name: simulate(setup(name), agents(20), 1).counters.cached_tokens for name in ("single", "lora")}
    assert hits["single"] > hits["lora"]


@systems
def test_devices_do_exactly_the_work_that_there_is(system: SystemName) -> None:
    """With costs that batches do not change, work is what each request takes alone, in whatever order it is done."""
    costs = setup().costs
    linear = type(costs)(PrefillCosts(0, 1e-4, 0), DecodeCosts(0, 0, 1e-3), TransferCosts(0, 0), 1)
    outcome = simulate(setup(system, costs=linear), agents(40, fan=2), 12)
    steps = outcome.counters.output_tokens - (0 if system in SHARED else outcome.counters.requests)
    work = outcome.counters.computed_tokens * 1e-4 + steps * 1e-3
    assert math.fsum(outcome.busy_s) == pytest.approx(work)


@systems
def test_littles_law(system: SystemName) -> None:
    """Mean number in the system = rate of arrival x mean time there; the number is counted, not derived."""
    outcome = simulate(setup(system), agents(60, rate=2.0), None)
    times = [record.done_s - record.sent_s for record in outcome.records]
    rate = len(times) / outcome.duration_s
    assert mean_number(outcome) == pytest.approx(rate * sum(times) / len(times))


def mean_number(outcome: SimulatedRun) -> float:
    changes = [(record.sent_s, 1) for record in outcome.records] + [(record.done_s, -1) for record in outcome.records]
    area, number, before = 0.0, 0, 0.0
    for when, change in sorted(changes):
        area += number * (when - before)
        number, before = number + change, when
    assert number == 0
    return area / outcome.duration_s


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_prefill_server_with_equal_prompts_waits_as_an_m_d_1_queue(load: float) -> None:
    """Mean wait of random arrivals at one server of fixed service time s: load * s / (2 * (1 - load))."""
    service, prompt = 0.05, 501
    costs = type(COSTS)(PrefillCosts(service, 0, 0), DecodeCosts(1e-6, 0, 0), TransferCosts(0, 0), 1, router_s=0.0)
    rng, now, sessions = random.Random(7), 0.0, []
    for number in range(4_000):
        now += rng.expovariate(load / service)
        sessions.append(one_call(f"s{number}", prompt, 1, now))
    alone = setup("shared", costs=costs, prefill=1, chunk=prompt - 1)  # a batch is one prompt
    outcome = simulate(alone, sessions, None)
    waits = [record.spans["prefill_queue"] for record in outcome.records]
    mean = math.fsum(end - begin for begin, end in waits) / len(waits)
    assert mean == pytest.approx(load * service / (2 * (1 - load)), rel=0.1)


@systems
def test_a_seed_gives_the_same_records_every_time(system: SystemName) -> None:
    def run() -> list[RequestRecord]:
        return simulate(setup(system, kv_tokens=12_000), agents(15, fan=2), 8).records

    assert run() == run()


def test_servers_that_share_cores_slow_each_other_down_and_lose_no_work() -> None:
    """Two prompts of two modules at once on one core: each takes twice as long, and the work is the same."""
    sessions = [one_call(f"s{number}", 1_000, 1, 0.0, module) for number, module in enumerate(MODULES[:2])]
    costs = type(COSTS)(PrefillCosts(0, 1e-3, 0), DecodeCosts(0, 0, 0), TransferCosts(0, 0), 1, router_s=0.0)
    apart = simulate(setup("colocated", costs=costs), sessions, None)
    shared = simulate(setup("colocated", costs=costs, cores=1), sessions, None)
    assert [record.done_s for record in apart.records] == pytest.approx([1.0, 1.0])
    assert [record.done_s for record in shared.records] == pytest.approx([2.0, 2.0])
    assert math.fsum(shared.busy_s) == pytest.approx(math.fsum(apart.busy_s))
