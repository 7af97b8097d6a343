"""Tokens of texts and chats, and texts of tokens; nothing is generated."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from psserve.contracts.api_keys import digest_of
from tests.router.conftest import PATIENCE_S, Fleet

HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
async def test_tokenize(fleet: Fleet, path: str) -> None:
    status, answer, headers = await fleet.post(path, {"model": "maths", "prompt": "abc"})
    assert (status, headers["x-psserve-module"]) == (200, "math")
    assert answer == {"tokens": [97, 98, 99], "count": 3, "max_model_len": 4096}
    assert not fleet.prefill.bodies


async def test_tokenize_several(fleet: Fleet) -> None:
    _, answer, _ = await fleet.post("/tokenize", {"model": "math", "prompt": ["a", "bc"]})
    assert (answer["tokens"], answer["count"]) == ([[97], [98, 99]], [1, 2])


async def test_a_chat_has_as_many_tokens_as_its_answer_says(fleet: Fleet) -> None:
    _, answer, _ = await fleet.post("/tokenize", {"model": "math", "messages": HELLO})
    _, chat, _ = await fleet.chat()
    assert answer["count"] == chat["usage"]["prompt_tokens"]


async def test_count_tokens_of_a_message(fleet: Fleet) -> None:
    _, counted, _ = await fleet.post("/v1/messages/count_tokens", {"model": "math", "messages": HELLO})
    _, message, _ = await fleet.post("/v1/messages", {"model": "math", "messages": HELLO, "max_tokens": 1})
    assert counted == {"input_tokens": message["usage"]["input_tokens"]}


async def test_count_tokens_is_of_the_effort_that_an_answer_has(make_fleet) -> None:
    fleet = await make_fleet()
    asked = {"model": "math", "messages": HELLO, "output_config": {"effort": "low"}}
    counted = await fleet.post("/v1/messages/count_tokens", asked)
    answered = await fleet.post("/v1/messages", asked | {"max_tokens": 1})
    assert counted[0] == answered[0] == 200
    by_count, by_answer = fleet.math.bodies
    assert by_count["reasoning_effort"] == by_answer["reasoning_effort"] == "low"
    assert by_count["chat_template_kwargs"] == by_answer["chat_template_kwargs"]
    assert counted[1] == {"input_tokens": answered[1]["usage"]["input_tokens"]}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_an_effort_that_there_is_not_is_refused(fleet: Fleet, path: str) -> None:
    asked = {"model": "math", "messages": HELLO, "output_config": {"effort": "huge"}}
    status, answer, _ = await fleet.post(path, asked | ({"max_tokens": 1} if path == "/v1/messages" else {}))
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert "reasoning_effort" in answer["error"]["message"]


ASKED: dict[str, dict[str, Any]] = {
    "/tokenize": {"prompt": "ab"},
    "/detokenize": {"tokens": [97, 98]},
    "/v1/messages/count_tokens": {"messages": HELLO},
}


@pytest.mark.parametrize("path", ASKED)
async def test_auto_is_any_module_that_is_ready_and_that_the_key_may_use(make_fleet, path: str) -> None:
    keys = [{"name": "all", "digest": digest_of("psk_all")}, key_for("one", ["code"]), key_for("none", ["other"])]
    fleet = await make_fleet(keys=keys, task_routing={})
    asked = {"model": "auto"} | ASKED[path]

    async def answer(secret: str) -> tuple[int, str | None]:
        status, _, headers = await fleet.post(path, asked, headers={"Authorization": f"Bearer psk_{secret}"})
        return status, headers.get("x-psserve-module")

    assert await answer("all") == (200, "math")
    assert await answer("one") == (200, "code")
    assert (await answer("none"))[0] == 404
    fleet.state.table.mark_down(fleet.state.table.decodes[0], "off")
    assert await answer("all") == (200, "code")


def key_for(name: str, modules: list[str]) -> dict[str, Any]:
    return {"name": name, "digest": digest_of(f"psk_{name}"), "modules": modules}


async def test_without_task_routing_there_is_no_auto(fleet: Fleet) -> None:
    status, answer, _ = await fleet.post("/tokenize", {"model": "auto", "prompt": "a"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


async def test_detokenize(fleet: Fleet) -> None:
    _, answer, _ = await fleet.post("/detokenize", {"model": "math", "tokens": [97, 98]})
    assert answer == {"text": "ab"}
    _, answer, _ = await fleet.post("/v1/detokenize", {"model": "math", "tokens": [[97], [98]]})
    assert answer == {"text": ["a", "b"]}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": HELLO}, "prompt"),
        ("/tokenize", {"prompt": [1]}, "prompt"),
        ("/tokenize", {"prompt": ["a"] * 129}, "prompt"),
        ("/tokenize", {"prompt": "a", "wish": 1}, "wish"),
        ("/tokenize", {"prompt": "a", "rid": "x"}, "rid"),
        ("/tokenize", {"messages": [{"role": "god"}]}, "messages[0].role"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [512]}, "tokens"),
        ("/detokenize", {"tokens": [[1], [-1]]}, "tokens"),
        ("/detokenize", {"tokens": [1], "skip_special_tokens": 1}, "skip_special_tokens"),
    ],
)
async def test_refused(fleet: Fleet, path: str, fields: dict[str, Any], param: str) -> None:
    status, answer, _ = await fleet.post(path, {"model": "math"} | fields)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_module_that_is_down(fleet: Fleet) -> None:
    for worker in fleet.state.table.decodes:
        fleet.state.table.mark_down(worker, "off")
    status, answer, _ = await fleet.post("/tokenize", {"model": "math", "prompt": "a"})
    assert (status, answer["error"]["code"]) == (503, "module_unavailable")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/tokenize", {"prompt": "a"}),
        ("/detokenize", {"tokens": [97]}),
        ("/v1/messages/count_tokens", {"messages": HELLO}),
    ],
)
async def test_the_client_s_deadline_holds(fleet: Fleet, path: str, fields: dict[str, Any]) -> None:
    fleet.math.freeze()
    async with asyncio.timeout(PATIENCE_S):
        status, answer, _ = await fleet.post(path, {"model": "math"} | fields, headers={"x-request-timeout": "0.2"})
    assert status == 504
    assert "longer than this server allows" in answer["error"]["message"]
