"""A version on trial beside a module: which sessions it answers, how it is named, and what is counted of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from psserve.contracts.router_config import ModuleConfig, RouterConfig
from psserve.router.answers.versions import is_chosen
from tests.router.conftest import Fleet, eventually
from tests.router.fake_worker import FakeWorker

TRIAL = {"version": 2, "zoo_version": 4, "group": "math", "adapter": "sums@2"}
SUMS = {"name": "sums", "aliases": ["adding"], "zoo_version": 3, "group": "math", "adapter": "sums@1"}
CODE = {"name": "code", "zoo_version": 1}


def on_trial(share: float, **fields: Any) -> dict[str, Any]:
    return SUMS | {"trial": TRIAL | {"share": share} | fields}


@pytest.fixture
async def fleet(make_fleet: Callable[..., Any]) -> Fleet:
    """Half of the sessions of sums are for its version 4, all others for version 3."""
    made: Fleet = await make_fleet(modules=[on_trial(50), CODE])
    return made


async def answered(fleet: Fleet, model: str, session: str = "s", **fields: Any) -> tuple[str, str]:
    """Which adapter answered, and which version the client was told."""
    body = {"model": model, "prompt": "p", "max_tokens": 1} | fields
    status, answer, headers = await fleet.post("/v1/completions", body, headers={"x-session-id": session})
    assert status == 200, answer
    return answer["choices"][0]["text"].removesuffix("-0"), headers["x-psserve-module-version"]


@pytest.mark.parametrize("share", [1, 10, 50])
def test_the_share_of_sessions_is_near_the_percentage(share: float) -> None:
    module = ModuleConfig.model_validate(on_trial(share))
    chosen = sum(is_chosen(module, f"session {number}") for number in range(10_000))
    assert abs(chosen - share * 100) < 150  # three standard deviations of 10,000 throws at one half


def test_a_larger_share_keeps_the_sessions_of_a_smaller_one() -> None:
    small, large = (ModuleConfig.model_validate(on_trial(share)) for share in (10, 30))
    sessions = [f"session {number}" for number in range(1000)]
    assert {one for one in sessions if is_chosen(small, one)} < {one for one in sessions if is_chosen(large, one)}


def test_another_trial_takes_other_sessions() -> None:
    first, second = (ModuleConfig.model_validate(on_trial(50, zoo_version=number)) for number in (4, 5))
    sessions = [f"session {number}" for number in range(100)]
    assert [is_chosen(first, one) for one in sessions] != [is_chosen(second, one) for one in sessions]


async def test_a_session_stays_with_its_version(fleet: Fleet) -> None:
    sessions = [f"session {number}" for number in range(20)]
    first = [await answered(fleet, "sums", session) for session in sessions]
    assert set(first) == {("sums@1", "3"), ("sums@2", "4")}
    assert [await answered(fleet, "adding", session, n=2) for session in sessions] == first


async def test_without_a_name_the_opening_of_a_conversation_tells_sessions_apart(fleet: Fleet) -> None:
    async def version(*words: str) -> str:
        roles = ["user", "assistant"] * 2
        messages = [{"role": role, "content": word} for role, word in zip(roles, words, strict=False)]
        _, _, headers = await fleet.post("/v1/chat/completions", {"model": "sums", "messages": messages})
        return str(headers["x-psserve-module-version"])

    first = [await version(f"question {number}") for number in range(20)]
    assert set(first) == {"3", "4"}
    assert [await version(f"question {number}", "yes", "why?") for number in range(20)] == first


async def test_a_version_can_be_named(fleet: Fleet) -> None:
    for session in ("a", "b", "c", "d"):
        assert await answered(fleet, "sums@3", session) == ("sums@1", "3")
        assert await answered(fleet, "sums@4", session) == ("sums@2", "4")
    status, answer, _ = await fleet.complete("sums@5")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


async def test_versions_are_no_models_of_their_own(fleet: Fleet) -> None:
    _, models = await fleet.get("/v1/models")
    assert [model["id"] for model in models["data"]] == ["sums", "adding", "code"]


async def test_without_a_share_only_its_name_leads_to_a_version(make_fleet: Callable[..., Any]) -> None:
    fleet = await make_fleet(modules=[on_trial(0), CODE])
    assert {await answered(fleet, "sums", f"session {number}") for number in range(20)} == {("sums@1", "3")}
    assert await answered(fleet, "sums@4") == ("sums@2", "4")


async def test_while_the_version_on_trial_has_no_server_the_other_answers(make_fleet: Callable[..., Any]) -> None:
    trial = {"version": 2, "zoo_version": 2, "share": 100}
    fleet = await make_fleet(modules=[{"name": "math"}, CODE | {"trial": trial}])
    assert await answered(fleet, "code") == ("code", "1")
    status, answer, _ = await fleet.complete("code@2")
    assert (status, answer["error"]["code"]) == (503, "module_unavailable")


async def test_requests_that_wait_for_the_version_on_trial_keep_nobody_else_waiting(
    make_fleet: Callable[..., Any],
) -> None:
    trial = {"version": 2, "zoo_version": 2}
    fleet = await make_fleet(modules=[{"name": "math", "zoo_version": 1, "trial": trial}, CODE])
    tried = FakeWorker("tried", "decode", fleet.math.fabric, module="math")
    await tried.start()
    try:
        config = fleet.state.config.model_dump()
        worker = {"name": "tried", "role": "decode", "port": tried.port, "module": "math", "version": 2}
        config["workers"] = [*config["workers"], worker | {"kv_tokens": 8}]
        fleet.state.reconfigure(RouterConfig.model_validate(config | {"serial": 1}))
        await fleet.ready()
        tried.faults.append("hang")
        waiting = [asyncio.create_task(fleet.complete("math@2")) for _ in range(2)]
        await eventually(lambda: fleet.state.admission.waiting == 1)
        assert (await fleet.complete("math"))[0] == 200
        for request in waiting:
            request.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        await tried.stop()


async def test_requests_are_counted_by_version_while_it_is_served(fleet: Fleet) -> None:
    for name in ("sums@3", "sums@4", "sums@4"):
        await answered(fleet, name)
    _, text = await fleet.get("/metrics")
    assert 'psserve_version_requests_total{code="200",module="sums",version="3"} 1.0' in text
    assert 'psserve_version_requests_total{code="200",module="sums",version="4"} 2.0' in text
    assert 'psserve_version_generation_tokens_total{module="sums",version="4"} 2.0' in text
    config = fleet.state.config
    ended = {"modules": [SUMS, CODE], "serial": config.serial + 1}
    fleet.state.reconfigure(RouterConfig.model_validate(config.model_dump() | ended))
    _, text = await fleet.get("/metrics")
    assert 'psserve_version_requests_total{code="200",module="sums",version="3"} 1.0' in text
    assert 'version="4"' not in text
