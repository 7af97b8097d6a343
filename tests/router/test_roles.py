"""Instructions in chats, by templates that take them anywhere, or at the front alone: alike in all APIs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from psserve.router.answers import roles
from tests.router.conftest import PATIENCE_S, Fleet

TALK = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "ho"},
]
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "developer", "content": "be kind"}, *TALK]}),
    ("/v1/responses", {"instructions": "be kind", "input": TALK}),
    ("/v1/messages", {"system": "be kind", "messages": TALK, "max_tokens": 5}),
]


@pytest.mark.parametrize(("path", "fields"), REQUESTS)
async def test_instructions_stay_in_their_place_where_the_template_renders_them(
    fleet: Fleet, path: str, fields: dict[str, Any]
) -> None:
    status, _, _ = await fleet.post(path, {"model": "math", **fields})
    assert status == 200
    shown = [{"role": "system", "content": "be kind"}, *TALK]
    assert fleet.math.bodies[-1]["messages"] == fleet.prefill.bodies[-1]["messages"] == shown


@pytest.mark.parametrize("strict", ["leaves_out", "refuses"])
@pytest.mark.parametrize(("path", "fields"), REQUESTS)
async def test_instructions_go_to_the_front_where_it_does_not(
    fleet: Fleet, path: str, fields: dict[str, Any], strict: str
) -> None:
    fleet.prefill.later_system = strict
    status, _, _ = await fleet.post(path, {"model": "math", **fields})
    assert status == 200
    others = [message for message in TALK if message["role"] != "system"]
    shown = [{"role": "system", "content": "be kind\n\nbe brief"}, *others]
    assert fleet.math.bodies[-1]["messages"] == fleet.prefill.bodies[-1]["messages"] == shown


async def test_the_template_is_tried_once_and_only_where_it_matters(fleet: Fleet) -> None:
    def tried() -> int:
        return len([body for body in fleet.prefill.bodies if "bootstrap_room" not in body])

    await fleet.chat("math", messages=[{"role": "developer", "content": "be kind"}, TALK[0]])
    assert tried() == 0
    for _ in range(3):
        await fleet.chat("math", messages=TALK)
    assert tried() == 2


@pytest.mark.parametrize("statuses", [(503,), (200, 503), (200, 500)])
async def test_a_trial_that_got_no_answer_is_made_again(fleet: Fleet, statuses: tuple[int, ...]) -> None:
    """The front is right for every template meanwhile."""
    fleet.prefill.tokenizing.extend(statuses)
    await fleet.chat("math", messages=TALK)
    assert fleet.math.bodies[-1]["messages"][0] == TALK[2]
    await fleet.chat("math", messages=TALK)
    assert fleet.math.bodies[-1]["messages"] == TALK


async def test_a_template_that_takes_no_system_message_at_all_is_tried_once(fleet: Fleet) -> None:
    fleet.prefill.tokenizing.extend([400, 400])
    for _ in range(2):
        await fleet.chat("math", messages=TALK)
        assert fleet.math.bodies[-1]["messages"][0] == TALK[2]


async def test_a_wrong_message_among_instructions_is_refused_by_name(fleet: Fleet) -> None:
    status, answer, _ = await fleet.chat("math", messages=[*TALK, {"role": "system", "content": None}])
    assert (status, answer["error"]["param"]) == (400, "messages[4].content")


async def test_the_time_that_a_trial_takes_is_the_request_s_own(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "PATIENCE_S", 2 * PATIENCE_S)
    fleet.prefill.freeze()
    body = {"model": "math", "messages": TALK}
    async with asyncio.timeout(PATIENCE_S):
        status, answer, _ = await fleet.post("/v1/chat/completions", body, headers={"x-request-timeout": "0.2"})
    assert (status, answer["error"]["code"]) == (504, "timeout")
    assert not fleet.math.bodies
