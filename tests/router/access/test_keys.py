"""Keys of clients: who gets in, to what, and how much at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from psserve.contracts.api_keys import ApiKey, digest_of
from psserve.contracts.router_config import RouterConfig
from psserve.router.access.clients import Rates, TokenBucket
from tests.router.conftest import Fleet, eventually

CI, OPS = "psk_ci", "psk_ops"


def key(name: str, secret: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "digest": digest_of(secret)} | fields


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
async def keyed(make_fleet) -> Fleet:
    """One key for the module math alone, one of an administrator."""
    keys = [key("ci", CI, modules=["math"]), key("ops", OPS, admin=True)]
    return await make_fleet(keys=keys, operator_key="operator-secret")


async def ask(fleet: Fleet, secret: str, model: str = "math", **fields: Any) -> tuple[int, dict[str, Any], Any]:
    body = {"model": model, "prompt": "p", "max_tokens": 2} | fields
    return await fleet.post("/v1/completions", body, headers=bearer(secret))


async def test_a_key_opens_the_api_and_no_other_does(keyed: Fleet) -> None:
    assert (await ask(keyed, CI))[0] == 200
    for headers in ({}, bearer("psk_guess"), bearer(""), bearer(digest_of(CI)), {"Authorization": f"Basic {CI}"}):
        status, answer, _ = await keyed.post("/v1/completions", {}, headers=headers)
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")


async def test_anthropic_s_header_holds_a_key_too(keyed: Fleet) -> None:
    assert (await keyed.get("/v1/models", headers={"x-api-key": CI}))[0] == 200
    assert (await keyed.get("/v1/models", headers={"x-api-key": "psk_guess"}))[0] == 401


async def test_a_key_reaches_its_modules_alone(keyed: Fleet) -> None:
    status, answer, _ = await ask(keyed, CI, "code")
    assert (status, answer["error"]["code"]) == (403, "model_not_allowed")
    assert (await ask(keyed, CI, "maths"))[0] == 200  # an alias of math
    assert (await ask(keyed, OPS, "code"))[0] == 200
    assert keyed.code.bodies
    assert not [body for body in keyed.code.bodies if body["prompt"] != "p"]


async def test_only_a_key_s_modules_are_listed(keyed: Fleet) -> None:
    _, listed = await keyed.get("/v1/models", headers=bearer(CI))
    assert [card["id"] for card in listed["data"]] == ["math", "maths"]
    assert (await keyed.get("/v1/models/code", headers=bearer(CI)))[0] == 404


@pytest.mark.parametrize("path", ["/workers", "/server_info", "/dashboard/data"])
async def test_the_fleet_s_own_affairs_are_for_administrators(keyed: Fleet, path: str) -> None:
    status, answer = await keyed.get(path, headers=bearer(CI))
    assert (status, answer["error"]["code"]) == (403, "admin_key_required")
    assert (await keyed.get(path, headers=bearer(OPS)))[0] == 200
    assert (await keyed.get(path, headers=bearer("operator-secret")))[0] == 200


async def test_a_key_file_without_keys_opens_nothing(make_fleet) -> None:
    fleet = await make_fleet(keys=[])
    assert (await ask(fleet, ""))[0] == 401


async def test_requests_a_minute(make_fleet) -> None:
    fleet = await make_fleet(keys=[key("ci", CI, requests_per_minute=2)])
    _, _, headers = await ask(fleet, CI)
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "1")
    assert (await fleet.get("/v1/models", headers=bearer(CI)))[0] == 200  # costs nothing
    await ask(fleet, CI)
    status, answer, headers = await ask(fleet, CI)
    assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(headers["Retry-After"]) <= 30
    assert len(fleet.math.bodies) == 2


async def test_tokens_a_minute_are_counted_at_the_end_of_a_request(make_fleet) -> None:
    fleet = await make_fleet(keys=[key("ci", CI, tokens_per_minute=10)])
    body = {"model": "math", "prompt": "0123456789", "stream": True, "max_tokens": 4}
    async with fleet.http.post(fleet.url + "/v1/completions", json=body, headers=bearer(CI)) as answer:
        assert answer.status == 200
        assert answer.headers["x-ratelimit-remaining-tokens"] == "10"
        await answer.read()
    await eventually(lambda: fleet.state.activity.ended)
    status, answer, headers = await ask(fleet, CI)
    assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded")
    assert headers["x-ratelimit-remaining-tokens"] == "0"


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What each request is charged with."""
    charged: list[int] = []
    monkeypatch.setattr(Rates, "spend", lambda _, tokens: charged.append(tokens))
    return charged


@pytest.mark.parametrize(("worker", "fault", "tokens"), [("math", "hang_paired", 11), ("prefill", "hang", 0)])
async def test_who_leaves_an_answer_pays_for_the_prompt_that_was_read(
    make_fleet, spent: list[int], worker: str, fault: str, tokens: int
) -> None:
    fleet = await make_fleet(keys=[key("ci", CI, tokens_per_minute=1000)])
    getattr(fleet, worker).faults.append(fault)
    leaving = asyncio.create_task(ask(fleet, CI, prompt="some prompt", n=2))
    await eventually(lambda: fleet.prefill.running if fault == "hang" else is_prefilled(fleet))
    leaving.cancel()
    await eventually(lambda: spent)
    assert spent == [tokens]


async def test_who_leaves_a_stream_pays_for_the_prompt_and_each_event(make_fleet, spent: list[int]) -> None:
    fleet = await make_fleet(keys=[key("ci", CI, tokens_per_minute=1000)])
    fleet.math.faults.append("hang_mid_stream")
    await leave_after(fleet, b"math-0")
    await eventually(lambda: spent)
    assert spent == [len("0123456789") + 1]


async def test_who_leaves_after_the_usage_pays_what_it_says(make_fleet, spent: list[int]) -> None:
    fleet = await make_fleet(keys=[key("ci", CI, tokens_per_minute=1000)])
    fleet.math.faults.append("hang_before_done")
    await leave_after(fleet, b'"completion_tokens":4')
    await eventually(lambda: spent)
    assert spent == [len("0123456789") + 4]


async def test_who_leaves_at_the_end_of_a_stream_has_not_left_early(make_fleet, spent: list[int]) -> None:
    fleet = await make_fleet(keys=[key("ci", CI, tokens_per_minute=1000)])
    fleet.math.faults.append("late_end")
    await leave_after(fleet, b"[DONE]")
    await eventually(lambda: fleet.state.activity.ended)
    assert [ended.code for ended in fleet.state.activity.ended] == ["200"]
    await fleet.idle()
    assert not fleet.math.aborted


def is_prefilled(fleet: Fleet) -> bool:
    return any(window.requests == 0 for window in fleet.state.admission._windows.values()) and bool(fleet.math.running)


async def leave_after(fleet: Fleet, words: bytes) -> None:
    """Ask for a stream, and close the connection at once when these were read."""
    options = {"include_usage": True}
    body = {"model": "math", "prompt": "0123456789", "stream": True, "stream_options": options, "max_tokens": 4}
    async with fleet.http.post(fleet.url + "/v1/completions", json=body, headers=bearer(CI)) as answer:
        read = b""
        while words not in read:
            read += await answer.content.readany()
        answer.close()


async def test_requests_at_a_time(make_fleet) -> None:
    fleet = await make_fleet(keys=[key("ci", CI, concurrent_requests=1)])
    fleet.math.faults.append("hang")
    first = asyncio.create_task(ask(fleet, CI))
    await eventually(lambda: fleet.math.running)
    assert (await ask(fleet, CI))[0] == 429
    first.cancel()
    await fleet.idle()

    async def free_again() -> bool:
        return bool((await ask(fleet, CI))[0] == 200)

    await eventually(free_again)


async def test_keys_come_and_go_while_the_router_runs(keyed: Fleet) -> None:
    document = keyed.state.config.model_dump()
    document["keys"] = [key("ci", CI, requests_per_minute=1), key("new", "psk_new")]
    assert (await ask(keyed, CI))[0] == 200
    keyed.state.reconfigure(RouterConfig.model_validate(document))
    assert (await ask(keyed, OPS))[0] == 401
    assert (await ask(keyed, "psk_new"))[0] == 200
    assert (await ask(keyed, CI))[0] == 200
    document["serial"] = 1
    keyed.state.reconfigure(RouterConfig.model_validate(document))
    assert (await ask(keyed, CI))[0] == 429  # what it has used is not forgotten


def test_a_bucket_fills_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("psserve.router.access.clients.monotonic", lambda: now)
    bucket = TokenBucket(60)
    bucket.take(90)
    assert (bucket.level, bucket.seconds_until(1)) == (-30, 31)
    now += 31
    assert bucket.level == 1
    now += 1000
    assert bucket.level == 60


def test_what_is_kept_does_not_hold_the_key() -> None:
    entry = ApiKey(name="ci", digest=digest_of(CI))
    assert CI not in repr(entry)
    assert len(entry.digest) == 64
