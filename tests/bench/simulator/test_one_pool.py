"""With one KV pool a context is kept once, for as long as it is read."""

from __future__ import annotations

from psserve.bench.simulator.asked import Asked, Basis, fleet_loads
from psserve.bench.simulator.simulation import SimulatedRun, simulate
from psserve.bench.simulator.system import SystemName
from psserve.bench.workloads.choice import WorkloadChoice
from tests.bench.simulator.sessions import COSTS, MODULES, agents, one_call, setup

TOTAL = 80_000


def asked(system: SystemName, prefill_tokens: int, decode_tokens: int) -> SimulatedRun:
    basis = Basis(COSTS, prefill_tokens, decode_tokens, {})
    made = Asked(
        systems=(system,),
        basis=basis,
        prefill=1,
        decode=4,
        modules=(MODULES,),
        cells=1,
        loads=fleet_loads(WorkloadChoice(preset="react"), None, None, 0, MODULES),
        prefill_policy="prefix",
        decode_policy="session",
        cores=1.0,
        slo=None,
        keep=1,
        command="",
    )
    return simulate(made.setup(system, MODULES), agents(48, turns=6), 24)


def test_sessions_beyond_what_private_pools_hold_find_their_contexts_in_one_as_large_as_all() -> None:
    shared, one = (asked(system, TOTAL * 3 // 5, TOTAL // 10) for system in ("shared", "one-pool"))
    assert one.counters.cached_tokens > shared.counters.cached_tokens
    assert one.duration_s < shared.duration_s
    assert sum(one.evicted_pages) < sum(shared.evicted_pages)


def test_whole_pages_are_never_sent() -> None:
    outcome = simulate(setup("one-pool", page_size=16), [one_call("s", 1_000, 50)], 1)
    assert outcome.counters.kv_bytes == 999 % 16 * COSTS.kv_bytes
    assert outcome.counters.decode_cached_tokens == 999 // 16 * 16


def test_a_prompt_keeps_its_place_until_its_answer_has_ended() -> None:
    """Two prompts that do not fit into the prefill server together: the second begins when the first is answered."""
    sessions = [one_call(name, 600, 200, 0.0, module) for name, module in (("first", "a"), ("second", "b"))]
    small = {"prefill": 1, "kv_tokens": 1_008, "decode_kv_tokens": 1_024}
    first, second = simulate(setup("one-pool", page_size=16, **small), sessions, None).records
    assert second.spans["prefill_queue"][1] >= first.spans["decode"][1]


def test_prompts_may_be_longer_than_a_decode_servers_own_pool() -> None:
    made = setup("one-pool", page_size=16, prefill=1, decode_kv_tokens=1_024)
    assert simulate(made, [one_call("s", 5_000, 50)], 1).counters.requests == 1
