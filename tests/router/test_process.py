"""The router as a process: its line on stdout, its exit statuses, draining."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO

import aiohttp
import pytest

from psserve.fleet.plan.ports import listens
from tests.ports import own_ports
from tests.router.conftest import PATIENCE_S, eventually, make_config, make_workers
from tests.router.fake_worker import FakeWorker


@pytest.fixture
async def workers() -> AsyncIterator[tuple[FakeWorker, FakeWorker, FakeWorker]]:
    trio = make_workers()
    for worker in trio:
        await worker.start()
    yield trio
    for worker in trio:
        await worker.stop()


Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start(tmp_path: Path, workers: tuple[FakeWorker, FakeWorker, FakeWorker]) -> AsyncIterator[Start]:
    """Starts routers before these workers; keyword arguments are fields of RouterConfig. None outlives its test."""
    started: list[Process] = []

    async def make(output: IO[bytes] | int = PIPE, **fields: object) -> Process:
        path = tmp_path / "router.json"
        path.write_text(make_config(*workers, **fields).model_dump_json())
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "psserve.router", "--config", path, stdout=output, stderr=output
        )
        started.append(process)
        return process

    yield make
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
def full_disk() -> Iterator[IO[bytes]]:
    with open("/dev/full", "wb") as full:
        yield full


async def test_a_full_disk_under_its_log_does_not_end_the_router(start: Start, full_disk: IO[bytes]) -> None:
    (port,) = own_ports(1)
    process = await start(output=full_disk, port=port)
    async with aiohttp.ClientSession() as http:
        await eventually(lambda: listens("127.0.0.1", port))
        await usable(http, f"http://127.0.0.1:{port}")
    process.terminate()
    await process.wait()


async def listening(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        line = json.loads(await process.stdout.readline())
    assert line["event"] == "listening"
    return str(line["url"])


async def usable(http: aiohttp.ClientSession, url: str) -> None:
    async def check() -> bool:
        async with http.get(url + "/v1/models") as models, http.get(url + "/workers") as workers:
            assert models.status == 200
            return all(worker["state"] == "ready" for worker in (await workers.json())["workers"])

    await eventually(check)


async def test_sigterm_lets_requests_finish_and_exits_0(start: Start, workers) -> None:
    process = await start()
    url = await listening(process)
    async with aiohttp.ClientSession() as http:
        await usable(http, url)
        workers[1].faults.append("wrong_count")  # any stream fault: it waits after the first event
        body = {"model": "math", "prompt": "some prompt", "max_tokens": 2, "stream": True}
        async with http.post(url + "/v1/completions", json=body) as response:
            await response.content.readany()
            process.send_signal(signal.SIGTERM)
            await eventually(lambda: refuses(url))
            workers[1].proceed.set()
            rest = await response.read()
        assert b"split_mismatch" in rest  # it ran to its end
    assert await process.wait() == 0


async def test_second_signal_ends_at_once(start: Start, workers) -> None:
    process = await start(drain_timeout_s=600)
    url = await listening(process)
    async with aiohttp.ClientSession() as http:
        await usable(http, url)
        workers[1].faults.append("hang")
        request = asyncio.create_task(http.post(url + "/v1/completions", json={"model": "math", "prompt": "p"}))
        await eventually(lambda: workers[1].running)
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: refuses(url))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
        with pytest.raises(aiohttp.ClientError):
            await request
    await eventually(lambda: not workers[1].running)


async def test_one_connection_too_many_is_told_so(start: Start) -> None:
    """By the process, whose event loop is uvloop: its transports are not asyncio's."""
    process = await start(limits={"connections": 1})
    host, port = (await listening(process)).removeprefix("http://").split(":")
    _, held = await asyncio.open_connection(host, int(port))
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    for end in (held, writer):
        end.close()
    process.terminate()
    assert await process.wait() == 0


async def test_a_router_that_is_held_up_loses_no_connection(start: Start) -> None:
    process = await start()
    url = await listening(process)
    process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(PATIENCE_S):
            host, port = url.removeprefix("http://").split(":")
            clients = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(600)))
    finally:
        process.send_signal(signal.SIGCONT)
    for _, writer in clients:
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answers = await asyncio.gather(*(reader.read() for reader, _ in clients))
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    for _, writer in clients:
        writer.close()
    process.terminate()
    await process.wait()


async def test_port_in_use_is_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await start(port=taken.getsockname()[1])
        _, err = await process.communicate()
    assert process.returncode == 1
    assert b"cannot listen" in err
    assert b"Traceback" not in err


async def test_bad_configuration_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    path.write_text('{"port": "x"}')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "psserve.router", "--config", path, stdout=PIPE, stderr=PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert err.startswith(b"psserve: error:")
    assert err.count(b"\n") == 1


async def test_router_imports_no_torch_and_no_sglang() -> None:
    unwanted = ("torch", "sglang", "transformers", "psserve.zoo", "psserve.fleet")
    code = f"import sys, psserve.router.__main__; print([name for name in {unwanted} if name in sys.modules])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE)
    out, _ = await process.communicate()
    assert out.strip() == b"[]"


async def refuses(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return True
    writer.close()
    return False
