"""Runs against a real router in front of fake workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from psserve.bench.load.options import LoadOptions
from psserve.bench.load.run import run_load
from psserve.bench.record import INTERRUPTED, RequestRecord
from psserve.bench.session import Call, Session, Step
from psserve.errors import BenchError, UsageError
from tests.router.conftest import Fleet, eventually

MATH, CODE = Call("math", 4), Call("code", 4)


class Told:
    """Counts what a run tells."""

    expected: int | None = None
    requests = sessions = 0

    def begin(self, sessions: int | None) -> None:
        self.expected = sessions

    def request_ended(self, record: RequestRecord) -> None:
        self.requests += 1

    def session_ended(self) -> None:
        self.sessions += 1


def sessions(number: int, *steps: Step, starts: float | None = None) -> list[Session]:
    steps = steps or (Step(300, (MATH,)), Step(300, (CODE,)))
    return [Session(f"s{n}", "sys", 400, steps, None if starts is None else n * starts) for n in range(number)]


async def run(fleet: Fleet, load: list[Session], **options: Any) -> list[RequestRecord]:
    return await run_load(load, {"math": fleet.url, "code": f"{fleet.url}/v1"}, LoadOptions(**options))


async def test_every_call_is_made_and_answers_join_the_context(fleet: Fleet) -> None:
    fleet.prefill.cached_tokens = 5
    records = await run(fleet, sessions(3))
    assert sorted((r.session, r.step, r.module) for r in records) == sorted(
        (f"s{n}", step, module) for n in range(3) for step, module in enumerate(("math", "code"))
    )
    assert all(r.error is None and r.output_tokens == 4 and r.cached_tokens == 5 for r in records)
    assert all(r.due_s <= r.sent_s <= (r.first_s or 0) <= r.done_s for r in records)
    longest = max((body["messages"] for body in fleet.code.bodies), key=len)
    assert [message["role"] for message in longest] == ["system", "user", "assistant", "user"]
    assert longest[2]["content"].split() == ["math-0"] * 4


async def test_all_systems_do_the_same_work(fleet: Fleet) -> None:
    await run(fleet, sessions(1))
    body = fleet.math.bodies[-1]
    assert (body["ignore_eos"], body["temperature"], body["max_tokens"]) == (True, 0, 4)


async def test_prompts_are_as_long_as_wanted(fleet: Fleet) -> None:
    records = await run(fleet, sessions(2))
    wanted = {0: 700, 1: 1004}  # of tokens, which are characters here; the answer's 4 tokens are 28 of them
    assert all(abs(r.prompt_tokens - wanted[r.step]) < 60 for r in records)


async def test_the_session_and_the_request_are_named(fleet: Fleet) -> None:
    records = await run(fleet, sessions(1), salt="abc")
    assert [r.request_id for r in records] == ["abc-s0-0-0", "abc-s0-1-0"]
    assert {r.session for r in records} == {"s0"}


async def test_calls_of_one_step_are_made_at_once_and_the_first_answer_joins(fleet: Fleet) -> None:
    records = await run(fleet, sessions(1, Step(300, (CODE, MATH)), Step(300, (MATH,))))
    assert sorted((r.step, r.call, r.module) for r in records) == [(0, 0, "code"), (0, 1, "math"), (1, 0, "math")]
    longest = max((body["messages"] for body in fleet.math.bodies), key=len)
    assert longest[2]["content"].split() == ["code-0"] * 4


async def test_a_failed_call_ends_its_session_and_no_other(fleet: Fleet) -> None:
    fleet.math.faults.append("status_400")
    records = await run(fleet, sessions(2, Step(300, (CODE,)), Step(300, (MATH,)), Step(300, (CODE,))), concurrency=1)
    assert [(r.session, r.step) for r in records if r.error] == [("s0", 1)]
    assert [(r.session, r.step) for r in records if not r.error] == [("s0", 0), ("s1", 0), ("s1", 1), ("s1", 2)]
    failed = next(r for r in records if r.error)
    assert (failed.first_s, failed.output_tokens) == (None, 0)
    assert (failed.error or "").startswith("status 400: ")


async def test_an_answer_that_breaks_off_failed(fleet: Fleet) -> None:
    fleet.code.faults.append("error_mid_stream")
    fleet.code.proceed.set()
    records = await run(fleet, sessions(1))
    assert [bool(r.error) for r in records] == [False, True]


async def test_a_closed_loop_keeps_to_its_concurrency(fleet: Fleet) -> None:
    records = await run(fleet, sessions(8), concurrency=3)
    events = sorted([(r.sent_s, 1) for r in records] + [(r.done_s, -1) for r in records])
    running = 0
    assert max(running := running + change for _, change in events) <= 3
    assert len(records) == 16


async def test_an_open_loop_starts_sessions_when_they_are_due(fleet: Fleet) -> None:
    records = await run(fleet, sessions(4, starts=0.05), concurrency=None)
    firsts = sorted((r for r in records if r.step == 0), key=lambda r: r.session)
    zero = firsts[0].due_s
    assert [r.due_s - zero for r in firsts] == pytest.approx([0, 0.05, 0.1, 0.15])
    assert all(r.sent_s >= r.due_s for r in records)


async def test_sessions_that_arrive_wait_for_a_place_in_the_order_of_their_arrival(fleet: Fleet) -> None:
    records = await run(fleet, sessions(6, starts=0.001), concurrency=None, limit=2)
    events = sorted([(r.sent_s, 1) for r in records] + [(r.done_s, -1) for r in records])
    running = 0
    assert max(running := running + change for _, change in events) <= 2
    firsts = sorted((r for r in records if r.step == 0), key=lambda r: r.session)
    arrivals = [r.arrived_s or 0.0 for r in firsts]
    assert [at - arrivals[0] for at in arrivals] == pytest.approx([0.001 * number for number in range(6)])
    assert sorted(firsts, key=lambda r: r.sent_s) == firsts
    ends = sorted(r.done_s for r in records if r.step == 1)
    assert firsts[2].sent_s >= ends[0]
    assert {r.arrived_s for r in records if r.step == 1} == {None}


@pytest.mark.parametrize("concurrency", [2, None])
async def test_warmup_sessions_are_over_before_what_counts(fleet: Fleet, concurrency: int | None) -> None:
    asked_when_warm: list[int] = []
    records = await run_load(
        sessions(4, starts=0.01),
        {"math": fleet.url, "code": fleet.url},
        LoadOptions(warmup=2, concurrency=concurrency),
        on_warm=lambda: asked_when_warm.append(len(fleet.math.bodies) + len(fleet.code.bodies)),
    )
    assert {r.session for r in records if r.warmup} == {"s0", "s1"}
    assert max(r.done_s for r in records if r.warmup) <= min(r.due_s for r in records if not r.warmup)
    assert asked_when_warm == [len(fleet.math.bodies) + len(fleet.code.bodies) - 4]


async def test_a_duration_ends_sessions_without_an_end(fleet: Fleet) -> None:
    endless = (Session(f"s{n}", "sys", 40, (Step(30, (MATH,)),)) for n in count())
    records = await run_load(endless, {"math": fleet.url}, LoadOptions(duration_s=0.2))
    assert records
    assert all(r.error is None for r in records)


async def test_stop_records_what_was_under_way_as_interrupted(fleet: Fleet) -> None:
    fleet.math.faults.append("hang")
    load = [
        Session("done", "sys", 40, (Step(300, (CODE,)),)),
        Session("calling", "sys", 40, (Step(300, (MATH,)),)),
        Session("waiting", "sys", 40, (Step(300, (CODE,), delay_s=1000),)),
    ]
    stop, told = asyncio.Event(), Told()
    running = asyncio.ensure_future(
        run_load(load, {"math": fleet.url, "code": fleet.url}, LoadOptions(concurrency=3), told, stop)
    )
    await eventually(lambda: fleet.math.running and told.sessions == 1)
    stop.set()
    errors = {r.session: r.error for r in await running}
    assert errors == {"done": None, "calling": INTERRUPTED, "waiting": INTERRUPTED}
    await fleet.idle()


async def test_progress_is_told(fleet: Fleet) -> None:
    told = Told()
    await run_load(sessions(3), {"math": fleet.url, "code": fleet.url}, LoadOptions(), told)
    assert (told.expected, told.requests, told.sessions) == (3, 6, 3)


async def test_a_server_that_is_not_there_is_named(fleet: Fleet) -> None:
    with pytest.raises(BenchError, match=r"^http://127\.0\.0\.1:1 cannot be reached"):
        await run_load(sessions(1), {"math": "http://127.0.0.1:1"}, LoadOptions())


async def test_a_model_that_is_not_served_is_named_with_those_that_are(fleet: Fleet) -> None:
    with pytest.raises(BenchError, match=r"does not serve sums; it has: .*code, math"):
        await run_load(sessions(1, Step(1, (Call("sums", 1),))), {"sums": fleet.url}, LoadOptions())


async def test_a_missing_key_is_told(make_fleet: Callable[..., Awaitable[Fleet]]) -> None:
    fleet = await make_fleet(api_key="secret")
    with pytest.raises(BenchError, match="give its key by --api-key"):
        await run(fleet, sessions(1))
    assert len(await run(fleet, sessions(1), api_key="secret")) == 2


async def test_an_open_loop_needs_starts_and_completions_a_tokenizer(fleet: Fleet) -> None:
    with pytest.raises(UsageError, match="arrival rate"):
        await run(fleet, sessions(1), concurrency=None)
    with pytest.raises(UsageError, match="--tokenizer"):
        await run(fleet, sessions(1), api="completions")
