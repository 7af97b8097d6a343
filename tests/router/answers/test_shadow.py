"""A version in the shadow of its module: it answers copies once the client has its answer, and agreement is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from psserve.router.answers.shadow import AT_ONCE, Listener, Said
from tests.router.conftest import Fleet, eventually

TRIAL = {"version": 2, "zoo_version": 4, "group": "math", "adapter": "sums@2", "shadow": True}
SUMS = {"name": "sums", "zoo_version": 3, "group": "math", "adapter": "sums@1", "trial": TRIAL}
CODE = {"name": "code"}


@pytest.fixture
async def fleet(make_fleet: Callable[..., Any]) -> Fleet:
    made: Fleet = await make_fleet(modules=[SUMS, CODE])
    return made


async def counted(fleet: Fleet, outcome: str) -> float:
    """Copies with this outcome."""
    _, text = await fleet.get("/metrics")
    wanted = f'psserve_shadow_answers_total{{module="sums",outcome="{outcome}",version="4"}} '
    return next((float(line.removeprefix(wanted)) for line in text.splitlines() if line.startswith(wanted)), 0.0)


async def becomes(fleet: Fleet, outcome: str, count: int) -> None:
    async def is_there() -> bool:
        return await counted(fleet, outcome) == count

    await eventually(is_there)


async def test_the_client_gets_the_modules_answer_and_the_copy_is_compared(fleet: Fleet) -> None:
    _, answer, headers = await fleet.complete("sums", max_tokens=1, temperature=0)
    assert (answer["choices"][0]["text"], headers["x-psserve-module-version"]) == ("sums@1-0", "3")
    await becomes(fleet, "different", 1)  # the fake says the adapter's name
    assert [body["lora_path"] for body in fleet.math.bodies] == ["sums@1", "sums@2"]
    _, text = await fleet.get("/metrics")
    for answer in ("given", "shadow"):
        assert f'psserve_shadow_tokens_total{{answer="{answer}",module="sums",version="4"}} 1.0' in text


async def test_a_streamed_answer_is_compared_with_a_whole_one(fleet: Fleet) -> None:
    status, data = await fleet.stream(model="sums", temperature=0, regex="(yes)|(no)")
    assert (status, b"[DONE]" in data) == (200, True)
    await becomes(fleet, "same", 1)
    assert [bool(body.get("stream")) for body in fleet.math.bodies] == [True, False]


async def test_answers_drawn_at_random_say_nothing_of_agreement(fleet: Fleet) -> None:
    await fleet.complete("sums", temperature=0.7)
    await becomes(fleet, "sampled", 1)


async def test_a_copy_that_fails_is_nobodys_loss(fleet: Fleet) -> None:
    fleet.math.unloadable.add("sums@2")
    assert (await fleet.complete("sums", temperature=0))[0] == 200
    await becomes(fleet, "failed", 1)


async def test_requests_with_several_choices_and_other_modules_have_no_copy(fleet: Fleet) -> None:
    await fleet.complete("sums", n=2)
    await fleet.complete("code")
    assert [body.get("lora_path") for body in fleet.math.bodies] == ["sums@1", "sums@1"]


async def test_only_so_many_requests_have_a_copy_at_a_time(fleet: Fleet) -> None:
    fleet.state.shadows._under_way = AT_ONCE
    await fleet.complete("sums")
    await becomes(fleet, "skipped", 1)
    assert len(fleet.math.bodies) == 1


def test_what_a_stream_says_is_what_the_whole_answer_says() -> None:
    call = {"id": "1", "function": {"name": "add", "arguments": '{"a": 1}'}}
    whole = Said()
    whole.add({"message": {"content": "Well, ", "reasoning_content": "Hm.", "tool_calls": [call]}})
    listener = Listener()
    for delta in (
        b'{"content":"We"}',
        b'{"content":"ll, ","reasoning_content":"Hm."}',
        b'{"tool_calls":[{"index":0,"id":"2","function":{"name":"add","arguments":""}}]}',
        b'{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\": 1}"}}]}',
    ):
        event = b'data: {"choices":[{"delta":' + delta + b"}]}\n\n"
        assert listener.feed(event) == event
    listener.feed(b'data: {"choices":[],"usage":{}}\n\ndata: [DONE]\n\n')
    assert listener.understand() == whole
