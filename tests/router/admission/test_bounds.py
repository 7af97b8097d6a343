"""How many may wait, for each prefill server that serves."""

from __future__ import annotations

import asyncio

import pytest

from psserve.contracts.limits import QueueLimits
from psserve.errors import RequestError
from psserve.router.admission.admission import Admission, Grant
from psserve.router.observability.metrics import Metrics
from psserve.router.placement.routing import Affinity
from psserve.router.policies import Prompt, Request
from tests.router.placement.test_routing import MATH, make_routing, named

WINDOW = 2
WAITING = 3


async def crowd(prefills: int) -> tuple[Admission, list[asyncio.Task[Grant]]]:
    """Requests that fill the windows of so many prefill servers, and as many as may wait then."""
    routing = make_routing()
    for number in range(prefills, 2):
        routing.table.mark_down(named(routing, f"prefill-{number}"), "gone")
    limits = QueueLimits(window_requests=2 * WINDOW, prefill_requests=WAITING)  # one module gets half of a window
    admission = Admission(routing, limits, Metrics(routing.table).load, None)
    asking = [asyncio.create_task(enter(admission, number)) for number in range(prefills * (WINDOW + WAITING))]
    await asyncio.sleep(0)
    return admission, asking


async def enter(admission: Admission, number: int) -> Grant:
    return await admission.enter(MATH, Request(Prompt((number,), 10, 10.0), f"session {number}"))


@pytest.mark.parametrize("prefills", [1, 2])
async def test_each_prefill_server_that_serves_lets_so_many_wait(prefills: int) -> None:
    admission, asking = await crowd(prefills)
    assert sum(task.done() for task in asking) == prefills * WINDOW
    with pytest.raises(RequestError) as refused:
        await enter(admission, -1)
    assert (refused.value.status, refused.value.code) == (429, "queue_full")
    assert not any(task.done() and task.exception() for task in asking)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_whoever_leaves_in_the_moment_of_its_turn_is_passed_over() -> None:
    _, asking = await crowd(1)
    let_in, (leaving, following, *others) = asking[:WINDOW], asking[WINDOW:]
    leaving.cancel()
    let_in[0].result().end()  # before the one that leaves has run again
    await asyncio.wait([following])
    assert following.result().module == MATH.name
    for task in (leaving, *others):
        task.cancel()
    await asyncio.gather(leaving, *others, return_exceptions=True)
    assert leaving.cancelled()


async def test_a_chat_that_names_no_limit_is_reckoned_with_as_its_modules_answers_were() -> None:
    """Not as if it had one: SGLang is sent none, and generates on."""
    routing = make_routing(base={"name": "base", "path": "/zoo/base", "vocab_size": 512, "context_length": 40_000})
    admission = Admission(routing, QueueLimits(), Metrics(routing.table).load, None)
    for _ in range(100):
        admission.outputs.learn(MATH.name, 4_000)
    chat = {"messages": [{"role": "user", "content": "hello"}]}
    held = []
    for body in (chat, chat | {"max_tokens": 30_000}, chat | {"max_tokens": 512}):
        grant = await admission.enter(MATH, await routing.request(Affinity(), chat, body))
        held.append(grant.holds[0].output_tokens)
        grant.end()
    assert held[0] == held[1] > 7_000
    assert held[2] == 512
