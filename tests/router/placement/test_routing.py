"""Which workers a sequence gets, what the policies are told, and what the loss of a worker does to the others."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any, get_args

import pytest

from psserve.contracts.router_config import POLICIES, ModuleConfig, RouterConfig
from psserve.errors import RequestError
from psserve.router.observability.metrics import Metrics
from psserve.router.placement.routing import Affinity, Place, Routing
from psserve.router.policies import ChoiceOutcome
from psserve.router.workers.workers import Worker, WorkerTable
from tests.router.conftest import Fleet, eventually, make_config
from tests.router.fake_worker import Fabric, FakeWorker

MATH = ModuleConfig(name="math")
LONG = "a prompt of several blocks. " * 20


def make_routing(**fields: Any) -> Routing:
    """Two prefill workers; two decode workers of math, one of code; all ready."""
    config = make_config(
        FakeWorker("prefill-0", "prefill", Fabric(), port=1, bootstrap_port=2),
        FakeWorker("math-0", "decode", Fabric(), module="math", port=3),
        FakeWorker("code-0", "decode", Fabric(), module="code", port=4),
    )
    document = config.model_dump()
    document["workers"] += (
        document["workers"][0] | {"name": "prefill-1", "port": 5},
        document["workers"][1] | {"name": "math-1", "port": 6},
    )
    config = RouterConfig.model_validate(document | {"kv_pool_tokens": 100_000} | fields)
    table = WorkerTable(config)
    for worker in table.workers:
        worker.mark_ready()
    return Routing.create(config, table, Metrics(table))


@pytest.fixture
def routing() -> Routing:
    return make_routing()


def named(routing: Routing, name: str) -> Worker:
    return next(worker for worker in routing.table.workers if worker.name == name)


async def place(
    routing: Routing, stack: ExitStack, prompt: Any = LONG, session: str | None = None, tokens: int = 8
) -> Place:
    body = {"prompt": prompt, "max_tokens": tokens}
    request = await routing.request(Affinity(session), body, body)
    placed = routing.place(request, *routing.candidates(MATH))
    stack.callback(placed.end)
    return placed


async def test_prompts_that_begin_alike_go_to_one_prefill_worker_from_any_session(routing: Routing) -> None:
    for start in ("x", "y", "z"):
        with ExitStack() as stack:
            first = await place(routing, stack, start + LONG)
            first.prefilled({"prompt": start + LONG}, 100)
        for session in ("a", "b", "c"):
            with ExitStack() as stack:
                again = await place(routing, stack, start + LONG + "and more", session)
                assert again.prefill is first.prefill
                again.prefilled({"prompt": start + LONG}, 100)


async def test_a_batch_of_different_prompts_is_spread_over_prefill_workers(routing: Routing) -> None:
    with ExitStack() as stack:
        places = [await place(routing, stack, f"{number} {LONG}", "one client") for number in range(4)]
    assert sorted(one.prefill.name for one in places) == ["prefill-0", "prefill-0", "prefill-1", "prefill-1"]
    assert len({one.decode for one in places}) == 1


async def test_a_session_keeps_its_decode_worker_and_so_does_a_conversation_without_one(routing: Routing) -> None:
    chosen = set()
    for number in range(20):
        with ExitStack() as stack:
            pair = [await place(routing, stack, f"{turn} {LONG}", f"session {number}") for turn in range(2)]
            assert pair[0].decode is pair[1].decode
            chosen.add(pair[0].decode.name)
    assert chosen == {"math-0", "math-1"}
    for number in range(20):
        with ExitStack() as stack:
            opening = f"{number} " + LONG * 2
            pair = [await place(routing, stack, opening + more) for more in ("", "more", "more and more")]
            assert len({one.decode for one in pair}) == 1


async def test_what_a_place_takes_up_is_given_back_in_every_case(routing: Routing) -> None:
    for fails, prefilled in ((False, True), (True, True), (True, False)):
        try:
            with ExitStack() as stack:
                one = await place(routing, stack)
                assert routing.prefill.outstanding(one.prefill.name) > 0
                assert routing.decode.outstanding(one.decode.name) > 8
                if prefilled:
                    one.prefilled({"prompt": LONG}, 100)
                    assert routing.prefill.outstanding(one.prefill.name) == 0
                if fails:
                    raise RequestError(503, "fails")
        except RequestError:
            pass
        for worker in routing.table.workers:
            assert routing.prefill.outstanding(worker.name) == routing.decode.outstanding(worker.name) == 0


async def test_prefill_workers_hold_what_fits_their_own_pools_not_the_smallest_of_the_fleet() -> None:
    workers = [worker.config.model_dump() for worker in make_routing().table.workers]
    sized = [worker | {"kv_tokens": 100_000 if worker["role"] == "prefill" else 64} for worker in workers]
    routing = make_routing(kv_pool_tokens=64, workers=sized)
    for _ in range(2):
        for number in range(30):
            with ExitStack() as stack:
                (await place(routing, stack, f"{number} {LONG}")).prefilled({"prompt": LONG}, 100)
    assert counted(routing, "prefill", "prefix", "new") == counted(routing, "prefill", "prefix", "hit") == 30


CHAT = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("prompt", "limits", "most", "reckoned"),
    [
        (CHAT, {}, "context", 512),
        (CHAT, {"max_tokens": 8}, 8, 8),
        (CHAT, {"max_completion_tokens": 9}, 9, 9),
        (CHAT, {"max_tokens": 1_000_000}, "context", "context"),
        ({"prompt": "hello"}, {}, 16, 16),
        # SGLang does not read this one here, so it limits nothing.
        ({"prompt": "hello"}, {"max_completion_tokens": 1, "max_tokens": 400}, 400, 400),
        ({"prompt": "hello"}, {"max_completion_tokens": 1, "messages": []}, 16, 16),
    ],
)
async def test_an_answer_is_as_long_as_sglang_lets_it_become(
    routing: Routing, prompt: dict[str, Any], limits: dict[str, Any], most: int | str, reckoned: int | str
) -> None:
    request = await routing.request(Affinity(), prompt, prompt | limits)
    left = 4096 - request.prompt.tokens
    assert request.most_output_tokens == (left if most == "context" else most)
    assert request.output_tokens == (left if reckoned == "context" else reckoned)


@pytest.mark.parametrize("leave", [True, False])
async def test_a_worker_that_came_back_is_not_thought_to_hold_anything(routing: Routing, leave: bool) -> None:
    with ExitStack() as stack:
        first = await place(routing, stack)
        first.prefilled({"prompt": LONG}, 100)
    if leave:
        routing.table.mark_down(first.prefill, "gone")
        first.prefill.mark_ready()
    with ExitStack() as stack:
        await place(routing, stack)
        assert counted(routing, "prefill", "prefix", "new") == 1 + leave


def counted(routing: Routing, *labels: str) -> float:
    return routing.metrics.routing_decisions.labels(*labels)._value.get()


async def test_the_token_length_of_text_is_learnt(routing: Routing) -> None:
    body = {"prompt": "x" * 4_000}
    first = await routing.keys.prompt(body)
    assert first.tokens == 1_000
    for _ in range(50):
        routing.keys.learn(body, await routing.keys.prompt(body), 4_000)
    later = await routing.keys.prompt(body)
    assert 3_500 < later.tokens <= 4_000
    assert later.blocks == first.blocks


@pytest.mark.parametrize("policy", POLICIES)
async def test_every_policy_serves_both_roles(policy: str) -> None:
    routing = make_routing(prefill_policy=policy, decode_policy=policy)
    with ExitStack() as stack:
        for number in range(6):
            await place(routing, stack, f"{number} {LONG}")
    total = sum(counted(routing, "prefill", policy, outcome) for outcome in get_args(ChoiceOutcome))
    assert total == 6


async def test_workers_that_are_not_ready_get_nothing(routing: Routing) -> None:
    routing.table.mark_down(named(routing, "prefill-0"), "gone")
    routing.table.doubt(named(routing, "math-0"), "silent")
    with ExitStack() as stack:
        for number in range(4):
            one = await place(routing, stack, f"{number} {LONG}", str(number))
            assert (one.prefill.name, one.decode.name) == ("prefill-1", "math-1")


async def test_other_decode_workers_never_stand_in(routing: Routing) -> None:
    for name in ("math-0", "math-1"):
        routing.table.mark_down(named(routing, name), "gone")
    with ExitStack() as stack, pytest.raises(RequestError, match="module 'math'") as caught:
        await place(routing, stack)
    assert (caught.value.status, caught.value.code) == (503, "module_unavailable")
    assert routing.prefill.outstanding("prefill-0") == routing.prefill.outstanding("prefill-1") == 0


async def test_decode_workers_are_proven_again_once_the_last_prefill_worker_is_lost(routing: Routing) -> None:
    routing.table.mark_down(named(routing, "prefill-0"), "gone")
    assert all(worker.is_ready for worker in routing.table.decodes)
    routing.table.mark_down(named(routing, "prefill-1"), "gone")
    assert {worker.state for worker in routing.table.decodes} == {"starting"}
    with ExitStack() as stack, pytest.raises(RequestError):
        await place(routing, stack)


async def test_over_http_decisions_are_counted_and_failures_leave_nothing_behind(fleet: Fleet) -> None:
    for fault in (None, None, "status_500", "hang"):
        if fault is not None:
            fleet.prefill.faults.extend([fault] * (1 if fault == "hang" else 3))  # a passing fault is tried again twice
        if fault == "hang":
            leaves = asyncio.create_task(fleet.complete(prompt=LONG))
            await eventually(lambda: fleet.prefill.running and fleet.math.running)
            leaves.cancel()
            await asyncio.gather(leaves, return_exceptions=True)
        else:
            status, _, _ = await fleet.complete(prompt=LONG)
            assert (status == 200) == (fault is None)
    await fleet.idle()
    routing = fleet.state.routing
    for policy in (routing.prefill, routing.decode):
        await eventually(lambda policy=policy: not any(policy.outstanding(worker.name) for worker in fleet.workers))
    _, text = await fleet.get("/metrics")
    assert 'psserve_routing_decisions_total{outcome="new",policy="prefix",role="prefill"} 1.0' in text
    assert 'psserve_routing_decisions_total{outcome="hit",policy="prefix",role="prefill"} 5.0' in text
    assert 'psserve_routing_decisions_total{outcome="affinity",policy="session",role="decode"} 6.0' in text
