"""With one KV pool a prompt takes up a prefill server's pool until its answer ends, the answer a decode server's."""

from __future__ import annotations

import asyncio

from psserve.contracts.limits import QueueLimits
from psserve.router.admission.admission import Admission, Grant
from psserve.router.observability.metrics import Metrics
from psserve.router.policies import Prompt, Request
from tests.router.placement.test_routing import MATH, make_routing, named

PROMPT, PAGE = 800, 16
BLOCKS = 16
LIMITS = QueueLimits(window_requests=100)


def admission_of(*, prefill: int, decode: int) -> Admission:
    """Two prefill servers and two of the module, with pools of these sizes."""
    routing = make_routing()
    for name, tokens in (("prefill-0", prefill), ("prefill-1", prefill), ("math-0", decode), ("math-1", decode)):
        worker = named(routing, name)
        worker.config = worker.config.model_copy(update={"kv_tokens": tokens})
    return Admission(routing, LIMITS, Metrics(routing.table).load, None, PAGE)


def asking(admission: Admission, text: int, answer: int) -> asyncio.Task[Grant]:
    """A request whose prompt is `text` alone's."""
    blocks = tuple(range(1000 * text, 1000 * text + BLOCKS))
    request = Request(Prompt(blocks, PROMPT, PROMPT / BLOCKS), f"session {text}", answer)
    return asyncio.create_task(admission.enter(MATH, request))


async def granted(tasks: list[asyncio.Task[Grant]]) -> list[Grant]:
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.result() for task in tasks if task.done()]


async def over(tasks: list[asyncio.Task[Grant]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_answers_alone_take_up_a_decode_servers_pool() -> None:
    admission = admission_of(prefill=10 * PROMPT, decode=3 * (100 + PAGE))
    tasks = [asking(admission, text, 100) for text in range(7)]
    first = await granted(tasks)
    assert len(first) == 2 * 3
    first[0].end()
    assert len(await granted(tasks)) == 7
    await over(tasks)


async def test_prompts_take_up_a_prefill_servers_pool_until_their_answers_end() -> None:
    admission = admission_of(prefill=2 * PROMPT, decode=10 * PROMPT)
    tasks = [asking(admission, text, 1) for text in range(5)]
    first = await granted(tasks)
    assert len(first) == 2 * 2
    for grant in first:
        grant.prefilled({}, PROMPT)
    assert len(await granted(tasks)) == 4, "what was computed is read until the answer ends"
    first[0].end()
    assert len(await granted(tasks)) == 5
    await over(tasks)


async def test_answers_without_a_limit_of_their_own_run_beside_each_other_in_a_small_pool() -> None:
    admission = admission_of(prefill=20 * PROMPT, decode=1024)
    tasks = [asking(admission, text, 4096) for text in range(2 * 4)]
    assert len(await granted(tasks)) == 2 * 4
    await over(tasks)


async def test_a_prompt_that_others_read_too_is_held_once() -> None:
    admission = admission_of(prefill=PROMPT, decode=10 * PROMPT)
    tasks = [asking(admission, 1, 1) for _ in range(6)]
    assert len(await granted(tasks)) == 6
    await over(tasks)
