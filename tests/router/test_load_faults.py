"""Load and faults of real requests on fake workers: queues, turns, deadlines, retries, breakers, frozen servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.router.conftest import Fleet, eventually
from tests.router.fake_worker import Fault

WINDOW = {"window_requests": 4}


def waiting(fleet: Fleet) -> int:
    return len(fleet.state.admission._queue)


def start(fleet: Fleet, count: int, model: str = "math", **fields: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(fleet.complete(model, prompt=f"{model} {number}", **fields)) for number in range(count)]


async def free(fleet: Fleet) -> None:
    """Nothing runs, waits or is held anywhere."""
    await fleet.idle()
    admission = fleet.state.admission
    assert len(admission._queue) == 0
    assert all((window.requests, window.tokens) == (0, 0) for window in admission._windows.values())
    assert all(
        (budget.requests, budget._unshared, len(budget._strides)) == (0, 0, 0) for budget in admission._budgets.values()
    )


async def release(worker_faults: list[asyncio.Task[Any]]) -> None:
    for task in worker_faults:
        task.cancel()
    await asyncio.gather(*worker_faults, return_exceptions=True)


async def test_a_flood_on_one_module_leaves_another_its_share(make_fleet: Callable[..., Any]) -> None:
    """500 requests for math wait, then 20 for code come: from then on prefill gets them in turn."""
    fleet = await make_fleet(queue=WINDOW)
    await fleet.http.close()
    fleet.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    fleet.prefill.faults.extend(["hang"] * 2)
    held = start(fleet, 2)
    await eventually(lambda: len(fleet.prefill.running) == 2)  # math's half of the window
    flood = start(fleet, 500, max_tokens=1)
    await eventually(lambda: waiting(fleet) == 500)
    fleet.prefill.faults.extend(["hang"] * 2)
    held += start(fleet, 2, "code")
    await eventually(lambda: len(fleet.prefill.running) == 4)
    late = start(fleet, 20, "code", max_tokens=1)
    await eventually(lambda: waiting(fleet) == 520)
    await release(held)
    answers = await asyncio.gather(*flood, *late)
    assert {status for status, _, _ in answers} == {200}
    order = [body["prompt"].split()[0] for body in fleet.prefill.bodies[4:]]
    assert order[:44].count("code") == 20
    await free(fleet)
    await fleet.http.close()


async def test_a_full_queue_is_a_429(make_fleet: Callable[..., Any]) -> None:
    fleet = await make_fleet(queue=WINDOW | {"module_requests": 3, "wait_secs": 600.0})
    fleet.prefill.faults.extend(["hang"] * 2)
    held = start(fleet, 2)
    await eventually(lambda: len(fleet.prefill.running) == 2)
    queued = start(fleet, 3)
    await eventually(lambda: waiting(fleet) == 3)
    status, answer, headers = await fleet.complete("math")
    assert (status, answer["error"]["code"], answer["error"]["type"]) == (429, "queue_full", "rate_limit_error")
    assert int(headers["Retry-After"]) > 0
    assert (await fleet.complete("code"))[0] == 200
    await release(held)
    assert {status for status, _, _ in await asyncio.gather(*queued)} == {200}
    await free(fleet)


async def test_a_long_wait_is_a_408(make_fleet: Callable[..., Any]) -> None:
    fleet = await make_fleet(queue=WINDOW | {"wait_secs": 0.5})
    fleet.prefill.faults.extend(["hang"] * 2)
    held = start(fleet, 2)
    await eventually(lambda: len(fleet.prefill.running) == 2)
    results = await asyncio.gather(*start(fleet, 3))
    assert {(status, answer["error"]["code"]) for status, answer, _ in results} == {(408, "queue_timeout")}
    await release(held)
    await free(fleet)


async def test_a_batch_that_the_queue_cannot_hold_is_refused_as_a_whole(make_fleet: Callable[..., Any]) -> None:
    fleet = await make_fleet(queue=WINDOW | {"module_requests": 3})
    status, answer, _ = await fleet.complete("math", prompt=[f"prompt {number}" for number in range(6)])
    assert (status, answer["error"]["code"]) == (429, "queue_full")
    await free(fleet)


async def test_those_of_higher_priority_go_first(make_fleet: Callable[..., Any]) -> None:
    fleet = await make_fleet(queue={"window_requests": 2})
    fleet.prefill.faults.append("hang")
    held = start(fleet, 1)
    await eventually(lambda: fleet.prefill.running)
    tasks = []
    for number, (name, priority) in enumerate((("low", -1), ("usual", 0), ("high", 1))):
        tasks.append(asyncio.create_task(fleet.complete("math", prompt=name, priority=priority)))
        await eventually(lambda number=number: waiting(fleet) == number + 1)
    await release(held)
    await asyncio.gather(*tasks)
    assert [body["prompt"] for body in fleet.prefill.bodies[1:]] == ["high", "usual", "low"]


async def test_deadline_of_a_client_says_nothing_of_the_worker(
    make_fleet: Callable[..., Any],
) -> None:
    fleet = await make_fleet(queue={"window_requests": 2})
    fleet.prefill.faults.append("hang")
    body = {"model": "math", "prompt": "p", "max_tokens": 1}
    for _ in range(2):  # the first in the hands of a worker, the second too: each ends at its own deadline
        status, answer, _ = await fleet.post("/v1/completions", body, headers={"x-request-timeout": "0.3"})
        if status == 200:
            break
        assert (status, answer["error"]["code"]) == (504, "timeout")
    assert all(worker.is_ready for worker in fleet.state.table.workers)
    await free(fleet)


async def test_who_waits_for_a_module_that_dies_hears_of_it(make_fleet: Callable[..., Any]) -> None:
    fleet = await make_fleet(queue={"window_requests": 2})
    fleet.prefill.faults.append("hang")
    held = start(fleet, 1)
    await eventually(lambda: fleet.prefill.running)
    queued = start(fleet, 5)
    await eventually(lambda: waiting(fleet) == 5)
    await fleet.math.stop()
    for status, answer, _ in await asyncio.gather(*queued):
        assert (status, answer["error"]["code"]) == (503, "module_unavailable")
    await release(held)
    await free(fleet)


async def test_clients_that_leave_the_queue_leave_nothing(make_fleet: Callable[..., Any]) -> None:
    fleet = await make_fleet(queue={"window_requests": 2})
    fleet.prefill.faults.append("hang")
    held = start(fleet, 1)
    await eventually(lambda: fleet.prefill.running)
    queued = start(fleet, 50)
    await eventually(lambda: waiting(fleet) == 50)
    await release(queued)
    await eventually(lambda: waiting(fleet) == 0)
    await release(held)
    assert (await fleet.complete("math"))[0] == 200
    await free(fleet)


async def test_a_pool_that_is_full_makes_its_module_wait_alone(make_fleet: Callable[..., Any]) -> None:
    fleet = await make_fleet(kv_pool_tokens=200)
    fleet.math.faults.append("hang_paired")
    held = start(fleet, 1, max_tokens=180)  # of which 128 are reckoned with
    await eventually(lambda: fleet.math.running and not fleet.prefill.running)
    queued = start(fleet, 1, max_tokens=100)
    await eventually(lambda: waiting(fleet) == 1)
    assert (await fleet.complete("code"))[0] == 200
    await release(held)
    assert (await queued[0])[0] == 200
    await free(fleet)


@pytest.mark.parametrize("leg", ["prefill", "math"])
@pytest.mark.parametrize("fault", ["status_500", "overloaded"])
async def test_a_passing_fault_is_hidden_by_a_new_attempt_in_a_new_room(fleet: Fleet, leg: str, fault: Fault) -> None:
    worker = getattr(fleet, leg)
    worker.faults.extend([fault] * 2)
    assert (await fleet.complete("math"))[0] == 200
    rooms = [body["bootstrap_room"] for body in worker.bodies]
    assert len(rooms) == len(set(rooms)) == 3
    await free(fleet)


async def test_an_error_before_the_first_token_of_a_stream_is_hidden_too(fleet: Fleet) -> None:
    fleet.math.faults.append("error_event")
    status, raw = await fleet.stream()
    assert (status, raw.count(b"error")) == (200, 0)
    assert raw.endswith(b"data: [DONE]\n\n")


async def test_retries_end_with_their_budget(make_fleet: Callable[..., Any]) -> None:
    fleet = await make_fleet(breaker={"failures": 1000})
    fleet.math.faults.extend(["status_500"] * 30)
    for _ in range(10):
        await fleet.complete("math")
    assert len(fleet.math.bodies) == 15  # ten requests and a floor of five retries
    _, text = await fleet.get("/metrics")
    assert 'psserve_retries_total{reason="error",role="decode"} 5.0' in text


async def test_a_module_that_always_fails_is_left_alone_tried_and_taken_back(make_fleet: Callable[..., Any]) -> None:
    fleet = await make_fleet(breaker={"failures": 4, "open_secs": 1.0, "successes": 2})
    fleet.math.faults.extend(["status_500"] * 4)
    for _ in range(4):
        await fleet.complete("math")
    breaker = next(worker for worker in fleet.state.table.decodes if worker.config.module == "math").breaker
    assert breaker.opened == 1
    assert all([(await fleet.complete("code"))[0] == 200 for _ in range(5)])
    await fleet.ready()
    assert breaker.state == "half-open"
    statuses = [(await fleet.complete("math"))[0] for _ in range(2)]
    assert (statuses, breaker.state) == ([200, 200], "closed")


async def test_with_an_open_prefill_breaker_nothing_is_decoded(
    make_fleet: Callable[..., Any],
) -> None:
    """F22: the prefill breaker is open, decode is healthy."""
    fleet = await make_fleet(breaker={"failures": 2, "open_secs": 600.0})
    fleet.prefill.faults.extend(["status_500"] * 20)
    for model in ("math", "code") * 2:
        await fleet.complete(model)
    decoded = len(fleet.math.bodies)
    status, answer, headers = await fleet.complete("math")
    assert (status, answer["error"]["code"]) == (503, "module_unavailable")
    assert int(headers["Retry-After"]) > 0
    assert len(fleet.math.bodies) == decoded
    _, text = await fleet.get("/metrics")
    assert 'psserve_worker_breaker_state{role="prefill",worker="prefill-0"} 2.0' in text


async def test_bad_requests_open_no_breaker(make_fleet: Callable[..., Any]) -> None:
    """F20, with fewer: each is one too many for a breaker of two."""
    fleet = await make_fleet(breaker={"failures": 2})
    fleet.math.faults.extend(["status_400"] * 20)
    assert {(await fleet.complete("math"))[0] for _ in range(20)} == {400}
    assert (await fleet.complete("math"))[0] == 200


async def test_a_frozen_worker_is_noticed_before_any_deadline(make_fleet: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.setattr("psserve.router.pairs.health.QUIET_S", 0.1)
    fleet = await make_fleet(breaker={"stall_secs": 3.0})  # what a busy machine may hold this process up for is less
    fleet.math.freeze()
    held = start(fleet, 1)
    await eventually(lambda: not fleet.state.table.decodes[0].is_ready)
    status, answer, _ = await fleet.complete("math")
    assert (status, answer["error"]["code"]) == (503, "module_unavailable")
    assert (await fleet.complete("code"))[0] == 200
    assert fleet.state.table.prefills[0].is_ready
    fleet.math.thaw()
    await fleet.ready()
    await release(held)


async def test_a_worker_that_computes_long_answers_is_not_thought_frozen(
    make_fleet: Callable[..., Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr("psserve.router.pairs.health.QUIET_S", 0.1)
    fleet = await make_fleet(breaker={"stall_secs": 5.0})
    fleet.math.faults.append("hang_paired")
    held = start(fleet, 1)
    await eventually(lambda: fleet.math.questions >= 2)
    assert fleet.state.table.decodes[0].is_ready
    await release(held)


async def test_connections_that_come_and_go_hold_nothing(fleet: Fleet) -> None:
    """F14, before a request: connects and drops."""
    host, port = fleet.url.removeprefix("http://").split(":")
    writers = [(await asyncio.open_connection(host, int(port)))[1] for _ in range(200)]
    for writer in writers:
        writer.close()
    async with aiohttp.ClientSession() as http, http.get(fleet.url + "/health") as answer:
        assert answer.status == 200
    await free(fleet)
