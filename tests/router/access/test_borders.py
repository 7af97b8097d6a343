"""What crosses the router's border and what does not: foreign names, other origins, prompts in logs, inner errors."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from psserve.contracts.router_config import RouterConfig
from psserve.contracts.tls import client_context, server_context
from psserve.errors import UsageError
from psserve.fleet.run.router_client import HttpClient
from tests.certificates import certificate
from tests.router.conftest import PATIENCE_S, Fleet, eventually, make_config
from tests.router.fake_worker import Fabric, FakeWorker

CANARY = "canary-5f3a"


@pytest.mark.parametrize(
    ("fields", "host", "status"),
    [
        ({}, "evil.example:30000", 403),
        ({}, "localhost:1", 200),
        ({}, "[::1]:1", 200),
        ({}, "10.0.0.7", 200),  # no web page can take an address for its name
        ({}, "127.0.0.1.evil.example", 403),
        ({"allowed_hosts": ["llm.example"]}, "LLM.example:443", 200),
        ({"allowed_hosts": ["llm.example"]}, "evil.example", 403),
        ({"api_key": "k"}, "evil.example", 200),  # who has no key gets no further
        ({"api_key": "k", "allowed_hosts": ["llm.example"]}, "evil.example", 403),
    ],
)
async def test_host_names(make_fleet, fields: dict[str, Any], host: str, status: int) -> None:
    fleet = await make_fleet(start=False, **fields)
    assert (await fleet.get("/health", headers={"Host": host}))[0] == status


async def raw(fleet: Fleet, request: bytes) -> bytes:
    """All that comes back until the router closes the connection."""
    host, port = fleet.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("path", ["/health", "/readiness", "/v1/models"])
async def test_a_health_check_need_not_name_its_host(fleet: Fleet, path: str) -> None:
    """HTTP/1.0 lets it be left out, and HAProxy does; HTTP/1.1 does not."""
    request = f"GET {path} HTTP/1.0\r\n\r\n".encode()
    assert (await raw(fleet, request)).split()[1] == b"200"
    assert (await raw(fleet, request.replace(b"\r\n\r\n", b"\r\nHost:\r\n\r\n"))).split()[1] == b"403"
    answer = await raw(fleet, request.replace(b"1.0", b"1.1"))
    assert answer.split()[1] == b"400"
    assert b'"code":"bad_request"' in answer


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_a_stream_to_an_http_1_0_client_ends_with_its_connection(fleet: Fleet, path: str) -> None:
    body = {"model": "math", "stream": True, "max_tokens": 3}
    chat = [{"role": "user", "content": "hi"}]
    if path == "/v1/responses":
        body = {"model": "math", "stream": True, "input": "hi"}
    else:
        body |= {"prompt": "p"} if path == "/v1/completions" else {"messages": chat}
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
    answer = await raw(fleet, f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    head, _, stream = answer.decode().partition("\r\n\r\n")
    assert head.split()[1] == "200"
    assert "keep-alive" not in head
    assert "[DONE]" in stream or "message_stop" in stream or "response.incomplete" in stream


@pytest.mark.parametrize("path", ["/v1/completions", "/nowhere", "/health"])
async def test_an_expectation_that_nobody_knows_is_refused_in_our_form(fleet: Fleet, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 200-ok\r\n"
    head, _, body = (await raw(fleet, f"{head}Content-Length: 2\r\n\r\n{{}}".encode())).decode().partition("\r\n\r\n")
    assert head.split()[1] == "417"
    assert "Server: psserve" in head.split("\r\n")
    assert json.loads(body)["error"]["code"] == "expectation_failed"


async def test_who_waits_for_100_continue_gets_it(fleet: Fleet) -> None:
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    data = b'{"model": "math", "prompt": "p"}'
    answer = await raw(fleet, f"{head}Expect: 100-Continue\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


async def test_no_other_origin_is_allowed_in(fleet: Fleet) -> None:
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    async with fleet.http.options(fleet.url + "/v1/chat/completions", headers=preflight) as response:
        assert response.status == 405
        assert not [name for name in response.headers if name.lower().startswith("access-control-")]
    async with fleet.http.get(fleet.url + "/v1/models", headers={"Origin": "https://evil.example"}) as response:
        assert not [name for name in response.headers if name.lower().startswith("access-control-")]


async def test_nothing_that_a_client_wrote_is_logged(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    headers = {"Authorization": f"Bearer {CANARY}", "x-request-id": f"{CANARY} forged=1", "x-session-id": CANARY}
    tools = [{"type": "function", "function": {"name": CANARY, "description": CANARY}}]
    body = {"model": "math", "messages": [{"role": "user", "content": CANARY}], "tools": tools, "max_tokens": 2}
    faults = (
        None,
        "status_500",
        "status_400",
        "unhandled",
        "validation",
        "abort",
        "not_json",
        "error_event",
        "reset",
        "wrong_count",
    )
    for fault in faults:
        for extra in ({}, {"stream": True}):
            if fault is not None:
                fleet.math.faults.extend([fault] * 4)  # more than it is retried
                fleet.math.proceed.set()
            async with fleet.http.post(
                fleet.url + "/v1/chat/completions", json=body | extra, headers=headers
            ) as answer:
                await answer.read()
            fleet.math.faults.clear()
        await fleet.ready()
    for bad in ({"model": CANARY}, {"temperature": CANARY}, {"rid": CANARY}, {CANARY: CANARY}, {"messages": CANARY}):
        await fleet.post("/v1/chat/completions", body | bad, headers=headers)
    await fleet.post("/v1/chat/completions", None, data=CANARY, headers={"Content-Type": "application/json"})
    await fleet.get(f"/{CANARY}")
    assert "code=200" in caplog.text
    assert "code=502" in caplog.text
    assert "code=400" in caplog.text
    assert CANARY not in "\n".join(line for line in caplog.text.splitlines() if "psserve.router" in line)


@pytest.mark.parametrize("fault", ["status_500", "error_event", "reset", "abort", "not_json", "wrong_count"])
async def test_errors_tell_nothing_of_the_inside(make_fleet, fault: Any) -> None:
    fleet = await make_fleet(api_key="client-secret")
    fleet.math.faults.extend([fault] * 4)  # more than it is retried
    body = {"model": "math", "prompt": "some prompt", "max_tokens": 2, "stream": fault == "error_event"}
    async with fleet.http.post(
        fleet.url + "/v1/completions", json=body, headers={"Authorization": "Bearer client-secret"}
    ) as response:
        text = await response.text()
    assert "error" in text
    inside = ("secret", "internal/", "/zoo", "127.0.0.1", str(fleet.math.port), "Traceback", "decode-math-0")
    assert not [word for word in inside if word in text]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "URL"}},
        {"type": "input_audio", "input_audio": {"data": "URL", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "URL"}},
        {"type": "file", "file": {"file_data": "URL"}},
    ],
)
async def test_only_text_is_taken_and_nothing_is_fetched(fleet: Fleet, part: dict[str, Any]) -> None:
    fetched: list[object] = []
    bait = await asyncio.start_server(lambda reader, writer: fetched.append(writer), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{bait.sockets[0].getsockname()[1]}/x.png"
    content = json.loads(json.dumps([part]).replace("URL", url))
    status, answer, _ = await fleet.chat("math", content)
    assert (status, answer["error"]["code"]) == (400, "unsupported_content_type")
    assert "only text" in answer["error"]["message"]
    assert not fleet.math.bodies
    assert not fleet.prefill.bodies
    assert not fetched
    bait.close()


def test_certificate_and_key_are_checked_and_named(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    _, other = certificate(tmp_path, "other")
    assert server_context(cert, key).minimum_version == ssl.TLSVersion.TLSv1_2
    for first, second, words in (
        (tmp_path / "none.pem", key, f"ssl_certfile {tmp_path / 'none.pem'}: No such file"),
        (cert, tmp_path / "none.key", f"ssl_keyfile {tmp_path / 'none.key'}: No such file"),
        (cert, other, f"{other} is not the private key of ssl_certfile {cert}"),
        (key, key, f"{key} cannot be used with"),
    ):
        with pytest.raises(UsageError, match=words.replace("(", r"\(")):
            server_context(first, second)
    key.chmod(0o644)
    with pytest.raises(UsageError, match=r"run chmod 600"):
        server_context(cert, key)


@asynccontextmanager
async def tls_router(folder: Path, **fields: Any) -> AsyncIterator[tuple[int, Path]]:
    """The port and the certificate of a router process whose certificate and key are in `folder`."""
    cert, key = certificate(folder)
    fabric = Fabric()
    trio = (
        FakeWorker("p", "prefill", fabric, port=1, bootstrap_port=2),
        FakeWorker("m", "decode", fabric, module="math", port=3),
        FakeWorker("c", "decode", fabric, module="code", port=4),
    )
    path = folder / "router.json"
    path.write_text(make_config(*trio, ssl_certfile=str(cert), ssl_keyfile=str(key), **fields).model_dump_json())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "psserve.router", "--config", path, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    url = json.loads(await process.stdout.readline())["url"]
    assert url.startswith("https://")
    try:
        yield int(url.rpartition(":")[2]), cert
    finally:
        process.terminate()
        await process.communicate()


async def is_trusted(port: int, context: ssl.SSLContext) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except ssl.SSLCertVerificationError:
        return False
    writer.close()
    return True


async def test_the_router_speaks_tls_and_its_certificate_is_pinned(tmp_path: Path) -> None:
    async with tls_router(tmp_path) as (port, cert):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(cert))
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        assert not await is_trusted(port, client_context(certificate(tmp_path, "other")[0]))


async def test_a_renewed_certificate_is_used_without_a_restart_and_our_own_client_follows(tmp_path: Path) -> None:
    async with tls_router(tmp_path) as (port, cert):
        before = client_context(cert)
        client = HttpClient(f"https://127.0.0.1:{port}", certificate=cert)
        assert await asyncio.to_thread(client.get, "/health", PATIENCE_S)
        certificate(tmp_path)
        new = client_context(cert)
        await eventually(lambda: is_trusted(port, new))
        assert not await is_trusted(port, before)
        assert await asyncio.to_thread(client.get, "/health", PATIENCE_S)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ssl_certfile": "/c"}, "belong together"),
        ({"host": "0.0.0.0"}, "api_key"),
        ({"keys": [{"name": "a", "digest": "0" * 64}] * 2}, "used twice"),
        ({"keys": [{"name": "A", "digest": "0" * 64}]}, "pattern"),
    ],
)
def test_configuration_that_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RouterConfig.model_validate(_document() | fields)


@pytest.mark.parametrize("fields", [{"insecure": True}, {"keys": []}, {"api_key": "k"}])
def test_who_may_listen_for_other_machines(fields: dict[str, Any]) -> None:
    assert RouterConfig.model_validate(_document() | {"host": "0.0.0.0"} | fields)


def _document() -> dict[str, Any]:
    workers = [FakeWorker(n, "decode", Fabric(), module="math", port=3) for n in "mc"]
    return make_config(FakeWorker("p", "prefill", Fabric(), port=1, bootstrap_port=2), *workers).model_dump()
