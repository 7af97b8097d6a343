"""What `/dashboard` sends: the data and its bounds, who gets it, and what the page may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.router.dashboard.routes import PAGE_FILES
from psserve.router.dashboard.view import phases, quantile
from psserve.router.observability.activity import BUCKET_S, BUCKETS, KEPT_REQUESTS, KEPT_TTFTS, Activity, Timeline
from psserve.router.observability.exchange import Exchange, SequenceRecord
from tests.router.conftest import Fleet, eventually

MakeFleet = Callable[..., Awaitable[Fleet]]
PAIR = ("prefill-0", "decode-math-0")


async def test_the_data_tells_what_a_request_did(fleet: Fleet) -> None:
    fleet.prefill.cached_tokens = 4
    await fleet.stream("/v1/completions", stream_options={"include_usage": True})
    await eventually(lambda: fleet.state.activity.ended)
    status, data = await fleet.get("/dashboard/data")
    assert status == 200
    [request] = data["requests"]
    assert (request["module"], request["code"]) == ("math", "200")
    assert (request["prompt_tokens"], request["cached_tokens"], request["output_tokens"]) == (11, 4, 3)
    assert sum(seconds for _, seconds in request["phases"]) == pytest.approx(request["took_s"])
    assert data["totals"]["cached_tokens"] == 4
    assert sum(data["series"]["output_tokens"]) == pytest.approx(3, abs=0.1)
    assert [(flow["prefill"], flow["decode"]) for flow in data["flows"]] == [PAIR]


async def test_the_data_tells_the_state_and_load_of_every_server(fleet: Fleet) -> None:
    _, data = await fleet.get("/dashboard/data")
    assert [server["name"] for server in data["servers"]] == [worker.name for worker in fleet.workers]
    assert {server["state"] for server in data["servers"]} == {"ready"}
    assert data["servers"][0]["load"] == {"running": 0, "queued": 0, "kv_tokens": 2048, "kv_used_tokens": 320}


LEASES = """\
psserve_kv_leases 2.0
psserve_kv_lease_tokens 300.0
psserve_kv_lease_age_seconds 1.5
"""


async def test_with_one_pool_the_data_tells_what_is_lent(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet(one_pool=True)
    fleet.prefill.metrics_page = fleet.math.metrics_page = LEASES
    _, data = await fleet.get("/dashboard/data")
    assert data["one_pool"] is True
    prefill, math, _ = (server["load"] for server in data["servers"])
    assert prefill["leases"] == {"count": 2, "tokens": 300, "oldest_s": 1.5}
    assert "leases" not in math


async def test_a_server_that_is_lost_has_no_load(fleet: Fleet) -> None:
    await fleet.math.stop()
    await eventually(lambda: not fleet.state.table.workers[1].is_ready)
    _, data = await fleet.get("/dashboard/data")
    assert data["servers"][1]["state"] == "down"
    assert data["servers"][1]["load"] is None


async def test_servers_are_asked_only_while_somebody_looks(fleet: Fleet) -> None:
    await fleet.complete()
    assert fleet.math.asked_loads == 0
    await fleet.get("/dashboard/data")
    assert fleet.math.asked_loads == 1


async def test_a_request_in_flight_is_told_with_what_it_has_streamed(fleet: Fleet) -> None:
    fleet.math.faults.append("hang_mid_stream")
    body = {"model": "math", "prompt": "some prompt", "max_tokens": 3, "stream": True}
    async with fleet.http.post(fleet.url + "/v1/completions", json=body) as response:
        await response.content.readany()
        _, data = await fleet.get("/dashboard/data")
        assert data["running"] == 1
        assert (data["requests"][0]["code"], data["requests"][0]["output_tokens"]) == (None, 1)
        assert sum(data["series"]["output_tokens"]) == pytest.approx(1, abs=0.1)
    await eventually(lambda: not fleet.state.activity.running)


async def test_errors_are_counted_by_code(fleet: Fleet) -> None:
    await fleet.complete(model="nobody")
    fleet.math.faults.append("status_400")
    await fleet.complete()
    _, data = await fleet.get("/dashboard/data")
    assert {error["code"]: error["count"] for error in data["errors"]} == {"404": 1, "400": 1}


async def test_no_text_of_a_prompt_is_kept(fleet: Fleet) -> None:
    await fleet.chat(content="sesame")
    await fleet.chat(model="sesame")
    async with fleet.http.get(fleet.url + "/dashboard/data") as response:
        assert b"sesame" not in await response.read()


async def test_the_data_needs_the_key_and_the_page_does_not(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet(api_key="secret")
    assert (await fleet.get("/dashboard/data"))[0] == 401
    assert (await fleet.get("/dashboard/data", headers={"Authorization": "Bearer secret"}))[0] == 200
    assert (await fleet.get("/dashboard"))[0] == 200


async def test_every_file_forbids_what_the_page_does_not_need(fleet: Fleet) -> None:
    for path in PAGE_FILES:
        async with fleet.http.get(fleet.url + path) as response:
            assert response.status == 200
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_every_file_of_the_page_is_served() -> None:
    page = files("psserve.router.dashboard").joinpath("page")
    assert {file.name for file in page.iterdir()} == {name for name, _ in PAGE_FILES.values()}


@pytest.mark.parametrize(
    ("marks", "names"),
    [
        ({}, ["route"]),
        ({"accepted": 1}, ["route", "open"]),
        ({"accepted": 1, "sent": 2}, ["route", "queue", "prefill", "answer"]),
        ({"accepted": 1, "sent": 2, "first_byte": 4}, ["route", "queue", "prefill", "first", "decode"]),
    ],
)
def test_phases_are_those_that_a_request_came_to(marks: dict[str, float], names: list[str]) -> None:
    sequence = SequenceRecord(is_first=True, started=2, prefilled=3)
    found = phases(Exchange("id", started=0, sequences=[sequence], **marks), 5)
    assert [name for name, _ in found] == names
    assert sum(seconds for _, seconds in found) == 5


def test_what_is_remembered_is_bounded() -> None:
    activity, now = Activity(), monotonic()
    for number in range(5000):
        exchange = Exchange("id", started=now, route="chat", module="math", first_byte=now + 1)
        activity.end(exchange, "200", now + number * BUCKET_S / 10)
    buckets = list(activity.timeline.last(now + 500 * BUCKET_S))
    assert len(activity.ended) == KEPT_REQUESTS
    assert len(activity.timeline._buckets) <= BUCKETS
    assert all(len(bucket.ttfts) <= KEPT_TTFTS for bucket in buckets)


@given(
    tokens=st.integers(1, 10_000),
    since=st.floats(0, 10_000),
    took=st.floats(0.001, (BUCKETS - 2) * BUCKET_S),
)
def test_spread_output_adds_up(tokens: int, since: float, took: float) -> None:
    timeline = Timeline()
    timeline.spread_output(PAIR, tokens, since, since + took)
    assert sum(bucket.output_tokens for bucket in timeline.last(since + took)) == pytest.approx(tokens)


@given(values=st.lists(st.floats(0, 100), min_size=1))
def test_a_quantile_is_a_value_that_its_share_does_not_exceed(values: list[float]) -> None:
    for share in (0.5, 0.95):
        found = quantile(values, share)
        assert found in values
        assert sum(value <= found for value in values) >= share * len(values)


async def test_two_versions_of_a_module_are_told_apart(make_fleet: MakeFleet) -> None:
    trial = {"version": 2, "zoo_version": 4, "share": 10}
    fleet = await make_fleet(modules=[{"name": "math", "zoo_version": 3, "trial": trial}, {"name": "code"}])
    await fleet.complete("math")
    await fleet.complete("code")
    _, data = await fleet.get("/dashboard/data")
    assert {request["module"] for request in data["requests"]} == {"math@3", "code"}
    assert {server["name"]: server["note"] for server in data["servers"]} == {
        "prefill-0": "",
        "decode-math-0": "version 3",
        "decode-code-0": "",
    }
