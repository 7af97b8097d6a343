"""Requests that succeed, not streamed."""

from __future__ import annotations

import asyncio

from tests.router.conftest import Fleet, eventually


async def test_completion_comes_from_the_module(fleet: Fleet) -> None:
    status, answer, headers = await fleet.complete("math")
    assert status == 200
    assert answer["choices"][0]["text"] == "math-0 math-0 math-0"
    assert answer["model"] == "math"
    assert headers["x-psserve-module"] == "math"
    assert headers["x-psserve-prefill-worker"] == "prefill-0"
    assert headers["x-psserve-decode-worker"] == "decode-math-0"
    assert float(headers["x-psserve-router-overhead-ms"]) >= 0


async def test_chat_comes_from_the_module(fleet: Fleet) -> None:
    status, answer, _ = await fleet.chat("code")
    assert status == 200
    assert answer["choices"][0]["message"]["content"].startswith("code-0")


async def test_alias_is_echoed_and_served(fleet: Fleet) -> None:
    status, answer, headers = await fleet.complete("maths")
    assert (status, answer["model"], headers["x-psserve-module"]) == (200, "maths", "math")


async def test_prefill_gets_the_prompt_and_one_token_only(fleet: Fleet) -> None:
    await fleet.complete("math", temperature=0.7, logprobs=2, stop=["x"], logit_bias={"3": 1}, user="u")
    pairing = {"rid", "bootstrap_host", "bootstrap_port", "bootstrap_room"}
    (body,) = fleet.prefill.bodies
    assert set(body) - pairing == {"model", "prompt", "max_tokens", "temperature", "stream"}
    assert (body["model"], body["max_tokens"], body["temperature"], body["stream"]) == ("base", 1, 0, False)


async def test_both_legs_get_the_same_pairing(fleet: Fleet) -> None:
    _, answer, _ = await fleet.complete("math")
    names = ("rid", "bootstrap_host", "bootstrap_port", "bootstrap_room")
    prefill, decode = ({name: body[name] for name in names} for body in (*fleet.prefill.bodies, *fleet.math.bodies))
    assert prefill == decode
    assert decode["bootstrap_port"] == fleet.prefill.bootstrap_port
    assert answer["id"] == decode["rid"]


async def test_decode_gets_the_clients_fields_known_or_not(fleet: Fleet) -> None:
    await fleet.complete("math", temperature=0.7, some_new_field={"a": 1}, user=None)
    (body,) = fleet.math.bodies
    assert body["temperature"] == 0.7
    assert body["some_new_field"] == {"a": 1}
    assert "user" not in body


async def test_cached_tokens_are_the_bases(fleet: Fleet) -> None:
    fleet.prefill.cached_tokens, fleet.math.cached_tokens = 7, 3
    _, answer, _ = await fleet.complete("math")
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 7
    assert answer["usage"]["prompt_tokens"] == len("some prompt")


async def test_cached_tokens_are_there_without_a_hit(fleet: Fleet) -> None:
    _, answer, _ = await fleet.chat("math")
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_prompt_of_one_token(fleet: Fleet) -> None:
    status, answer, _ = await fleet.complete("math", prompt=[5])
    assert (status, answer["usage"]["prompt_tokens"]) == (200, 1)


async def test_n_gives_n_sequences_with_rooms_of_their_own(fleet: Fleet) -> None:
    status, answer, _ = await fleet.complete("math", n=3, seed=10)
    assert status == 200
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [choice["text"].split()[0] for choice in answer["choices"]] == ["math-10", "math-11", "math-12"]
    assert len({body["bootstrap_room"] for body in fleet.math.bodies}) == 3
    assert not any("n" in body for body in fleet.math.bodies)


async def test_base_computes_a_prompt_once_before_the_other_sequences_come(fleet: Fleet) -> None:
    """Each prompt's first sequence alone; then the others at once, even while the first one's answer goes on."""
    fleet.prefill.faults.extend(["hang"] * 2)
    waiting = asyncio.create_task(fleet.complete("math", prompt=["one", "two"], n=3))
    await eventually(lambda: len(fleet.prefill.running) == 2)
    await fleet.complete("code")  # time for a third to come
    assert sorted(body["prompt"] for body in fleet.math.bodies) == ["one", "two"]
    waiting.cancel()
    await fleet.idle()

    fleet.math.faults.append("hang_paired")
    waiting = asyncio.create_task(fleet.complete("math", prompt="three", n=3))
    await eventually(lambda: [body["prompt"] for body in fleet.math.bodies].count("three") == 3)
    waiting.cancel()
    await fleet.idle()


async def test_usage_counts_a_prompt_once_and_every_answer(fleet: Fleet) -> None:
    fleet.prefill.cached_tokens = 4
    _, answer, _ = await fleet.complete("math", prompt=[[1, 2, 3], [4, 5, 6, 7]], n=2)
    assert answer["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 12,
        "reasoning_tokens": 0,
        "total_tokens": 19,
        "prompt_tokens_details": {"cached_tokens": 8},
    }


async def test_batch_is_prompt_major(fleet: Fleet) -> None:
    _, answer, _ = await fleet.complete("math", prompt=["one", "four"], n=2, seed=1)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [choice["text"].split()[0] for choice in answer["choices"]] == ["math-1", "math-2", "math-1", "math-2"]
    assert sorted(body["prompt"] for body in fleet.math.bodies) == ["four", "four", "one", "one"]
    assert answer["id"] in {body["rid"] for body in fleet.math.bodies if body["prompt"] == "one"}


async def test_named_tool_is_the_only_one_the_base_sees(fleet: Fleet) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("add", "sub")]
    choice = {"type": "function", "function": {"name": "sub"}}
    status, _, _ = await fleet.chat("math", tools=tools, tool_choice=choice)
    assert status == 200  # both legs counted the same prompt
    sub = {"description": None, "name": "sub", "parameters": None, "strict": False}
    assert fleet.prefill.bodies[0]["tools"] == [{"type": "function", "function": sub}]
    assert "tool_choice" not in fleet.prefill.bodies[0]
    assert fleet.math.bodies[0]["tool_choice"] == choice


async def test_tools_come_to_both_legs_in_one_order_of_fields(fleet: Fleet) -> None:
    """In which a client writes them would count for the prompt's tokens."""
    function = {"x": 1, "strict": True, "parameters": {"type": "object"}, "name": "add"}
    status, _, _ = await fleet.chat("math", tools=[{"type": "function", "function": function}])
    assert status == 200
    for server in (fleet.prefill, fleet.math):
        (tool,) = server.bodies[0]["tools"]
        assert [*tool["function"]] == ["description", "name", "parameters", "strict", "x"]
        assert tool["function"] == {"description": None, **function}


async def test_sane_request_id_is_echoed(fleet: Fleet) -> None:
    body = {"model": "math", "prompt": "p"}
    _, _, headers = await fleet.post("/v1/completions", body, headers={"x-request-id": "abc-1"})
    assert headers["x-request-id"] == "abc-1"


async def test_odd_request_id_is_replaced(fleet: Fleet) -> None:
    body = {"model": "math", "prompt": "p"}
    _, _, headers = await fleet.post("/v1/completions", body, headers={"x-request-id": "a b" * 100})
    assert len(headers["x-request-id"]) == 32


async def test_clients_cannot_steer_workers_by_header(fleet: Fleet) -> None:
    sent = {"x-override-bootstrap-room": "1", "x-data-parallel-rank": "3", "traceparent": "00-abc-def-01"}
    await fleet.post("/v1/completions", {"model": "math", "prompt": "p"}, headers=sent)
    for headers in (*fleet.prefill.headers, *fleet.math.headers):
        assert not [name for name in headers if name.lower().startswith(("x-override", "x-data"))]
        assert headers["traceparent"] == "00-abc-def-01"
