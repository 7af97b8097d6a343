"""Requests that are too large, too slow or no HTTP: each is refused in OpenAI's form, and a good one passes after."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from typing import Any

import pytest

from psserve.router.access.server import _Server
from tests.router.conftest import PATIENCE_S, Fleet, eventually

SMALL: dict[str, Any] = {
    "body_bytes": 4096,
    "header_bytes": 2048,
    "headers": 20,
    "depth": 8,
    "containers": 30,
    "elements": 40,
    "messages": 2,
    "tools": 1,
    "choices": 2,
    "stops": 1,
    "logit_bias": 1,
    "grammar_bytes": 64,
    "tool_bytes": 64,
}
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "add"}}
TALL_TOOL = {"type": "function", "function": {"name": "add", "parameters": {"title": "x" * 60}}}
POST = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
async def small(make_fleet) -> Fleet:
    return await make_fleet(limits=SMALL)


async def raw(fleet: Fleet, *pieces: bytes, pause_s: float = 0.0) -> tuple[int, dict[str, Any]]:
    """Send bytes as they are; status and body of the answer, after which the connection is closed."""
    host, port = fleet.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause_s)
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in head.split("\r\n") if line.lower().startswith("content-length:"))
        body = await reader.readexactly(int(length.partition(":")[2]))
    writer.close()
    return int(head.split()[1]), json.loads(body)


async def test_every_limit_is_refused_in_openai_s_form_and_a_good_request_passes_after(small: Fleet) -> None:
    big = b"x" * 5000
    cases: list[tuple[int, str, tuple[bytes, ...]]] = [
        (413, "request_too_large", (f"{POST}Content-Length: 5000\r\n\r\n".encode(), big)),
        (
            413,
            "request_too_large",
            (f"{POST}Transfer-Encoding: chunked\r\n\r\n1388\r\n".encode(), big + b"\r\n0\r\n\r\n"),
        ),
        (431, "header_too_large", (f"{POST}X-Long: {'x' * 3000}\r\n\r\n".encode(),)),
        (
            431,
            "header_too_large",
            (POST.encode() + b"".join(b"X-%d: %s\r\n" % (i, b"x" * 300) for i in range(9)) + b"\r\n",),
        ),
        (431, "header_too_large", (POST.encode() + b"".join(b"X-%d: x\r\n" % i for i in range(50)) + b"\r\n",)),
        (431, "header_too_large", (f"GET /{'x' * 3000} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),)),
        (400, "bad_request", (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",)),
        (400, "bad_request", (b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\rb\r\n\r\n",)),
        (400, "bad_request", (f"{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),)),
    ]
    for status, code, pieces in cases:
        got, answer = await raw(small, *pieces)
        assert (got, answer["error"]["code"]) == (status, code), pieces[0][:60]
        assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert (await small.complete())[0] == 200


async def test_a_body_that_does_not_come_is_refused_and_a_good_request_passes_after(make_fleet) -> None:
    fleet = await make_fleet(limits=SMALL | {"body_secs": 1.0})
    got, answer = await raw(fleet, f"{POST}Content-Length: 10\r\n\r\n{{".encode())
    assert (got, answer["error"]["code"]) == (408, "request_timeout")
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert (await fleet.complete())[0] == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [USER] * 3}, "messages"),
        ({"tools": [TOOL] * 2}, "tools"),
        ({"n": 3}, "n"),
        ({"stop": ["a", "b"]}, "stop"),
        ({"logit_bias": {"1": 1, "2": 1}}, "logit_bias"),
        ({"regex": "a" * 65}, "regex"),
        ({"json_schema": '{"items":' * 4 + "{}" + "}" * 4 + " " * 60}, "json_schema"),
        ({"response_format": {"type": "json_object", "x": "y" * 80}}, "response_format"),
        ({"tools": [TALL_TOOL], "tool_choice": "required"}, "tools[0].function.parameters"),
        ({"metadata": [[[[[[[[]]]]]]]]}, None),
        ({"metadata": [[]] * 40}, None),
        ({"metadata": [0] * 60}, None),
    ],
)
async def test_what_a_body_may_hold(small: Fleet, fields: dict[str, Any], param: str | None) -> None:
    body = {"model": "math", "messages": [USER], "max_tokens": 2} | fields
    status, answer, _ = await small.post("/v1/chat/completions", body)
    assert (status, answer["error"]["param"]) == (400, param)
    assert not small.math.bodies


async def test_brackets_and_commas_of_a_text_do_not_count(small: Fleet) -> None:
    assert (await small.complete(prompt='{[,"\\' * 100))[0] == 200


async def test_of_two_values_of_a_name_the_last_is_checked_and_sent(small: Fleet) -> None:
    body = b'{"model": "code", "model": "math", "prompt": "p", "rid": null, "max_tokens": 2}'
    assert (await small.post("/v1/completions", None, data=body, headers={"Content-Type": "application/json"}))[
        0
    ] == 200
    assert [body["model"] for body in small.math.bodies] == ["math"]
    assert not small.code.bodies


@pytest.mark.parametrize("value", [b"9" * 3000, b"1e999", b"NaN", b"-Infinity", b'"\\ud800"', b'"\xff"', b"[" * 2000])
async def test_values_that_are_bombs(small: Fleet, value: bytes) -> None:
    body = b'{"model": "math", "prompt": "p", "temperature": ' + value + b"}"
    status, answer, _ = await small.post(
        "/v1/completions", None, data=body, headers={"Content-Type": "application/json"}
    )
    assert (status, answer["error"]["code"]) == (400, "invalid_json")


async def test_a_connection_that_sends_no_whole_header_is_closed(make_fleet) -> None:
    fleet = await make_fleet(limits={"idle_secs": 0.2})
    host, port = fleet.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /health HTTP/1.1\r\nHost: loc")
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.read() == b""
    writer.close()


async def test_connections_beyond_the_limit_are_refused_and_counted_off(make_fleet) -> None:
    fleet = await make_fleet(limits={"connections": 2})
    host, port = fleet.url.removeprefix("http://").split(":")
    held = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    status, answer = await raw(fleet)
    assert (status, answer["error"]["code"]) == (503, "server_is_overloaded")
    for _, writer in held:
        writer.close()

    async def free_again() -> bool:
        return bool((await fleet.get("/health"))[0] == 200)

    await eventually(free_again)


async def test_a_client_that_has_sent_its_request_reads_that_there_are_too_many(make_fleet) -> None:
    fleet = await make_fleet(limits={"connections": 1})
    host, port = fleet.url.removeprefix("http://").split(":")
    _, held = await asyncio.open_connection(host, int(port))
    late = socket.create_connection((host, int(port)))
    late.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n" + b" " * 20_000)
    reader, writer = await asyncio.open_connection(sock=late)
    async with asyncio.timeout(PATIENCE_S):
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
    writer.close()
    held.close()


async def test_a_client_that_does_not_read_its_answer_is_cut_off(make_fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = await make_fleet(limits={"body_secs": 0.5})
    fleet.math.module = "x" * 100_000
    lost: list[object] = []
    monkeypatch.setattr(_Server, "connection_lost", lambda *handler: lost.append(handler))
    body = b'{"model": "math", "prompt": "p", "max_tokens": 500}'
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    host, port = fleet.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await eventually(lambda: lost)
    assert [ended.code for ended in fleet.state.activity.ended] == ["200"]


async def test_the_refusal_of_what_is_no_http_does_not_name_the_server_s_library(small: Fleet) -> None:
    host, port = small.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: \rb\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    assert "Server: psserve\r\n" in head
    assert "aiohttp" not in head


async def test_what_is_no_http_is_logged_without_its_bytes(small: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await raw(small, f"{POST}Authorization: Bearer psk_canary{'x' * 3000}\r\n\r\n".encode())
    await raw(small, b"GET / HTTP/1.1\r\nHost: a\r\nX-Canary: psk_canary\rb\r\n\r\n")
    assert "status=431" in caplog.text
    assert "status=400" in caplog.text
    assert "psk_canary" not in caplog.text
