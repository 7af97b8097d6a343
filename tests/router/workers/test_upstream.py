"""Connections to workers: what ends them, and what does not."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from psserve.router.workers.failures import LegFailure
from psserve.router.workers.silence import SILENT_S
from psserve.router.workers.upstream import Upstream
from psserve.router.workers.workers import WorkerTable
from tests.router.conftest import Fleet, make_config, make_workers

SERVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        print("asked", flush=True)
        input()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"answer")

server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


SIZES = (2, 32 * 1024, 32 * 1024 + 1, 16 * 1024 * 1024)
"""Bytes of a request."""


@pytest.mark.slow
async def test_servers_that_are_stopped_for_long_keep_their_connections() -> None:
    """Their kernels answer for them: they may only be busy, and need not read what is on its way to them."""
    async with asyncio.TaskGroup() as all_at_once:
        for size in SIZES:
            all_at_once.create_task(_keeps_its_connection(size))


async def _keeps_its_connection(size: int) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    workers = make_workers()
    workers[0].port, workers[0].bootstrap_port = int(await process.stdout.readline()), 1
    workers[1].port, workers[2].port = 1, 2
    config = make_config(*workers)
    table = WorkerTable(config)
    upstream = Upstream(config, table)
    asked = asyncio.create_task(upstream.post(table.prefills[0], "/", b" " * size, {}, fresh=True))
    assert await process.stdout.readline() == b"asked\n"
    process.send_signal(signal.SIGSTOP)
    done, _ = await asyncio.wait([asked], timeout=SILENT_S + 3)
    process.send_signal(signal.SIGCONT)
    assert not done, size
    process.stdin.write(b"\n")
    assert await upstream.read(table.prefills[0], await asked) == b"answer"
    process.kill()
    await process.communicate()
    await upstream.close()


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """This process can open nothing meanwhile."""
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_descriptors_that_run_out_are_no_fault_of_a_worker(fleet: Fleet) -> None:
    worker, upstream = fleet.state.table.decodes[0], fleet.state.upstream
    with no_more_descriptors():
        with pytest.raises(LegFailure) as failed:
            await upstream.post(worker, "/v1/completions", b"{}", {}, fresh=True)
        assert await upstream.accepts(worker)
    assert (failed.value.status, failed.value.code, failed.value.reason) == (503, "server_is_overloaded", "socket")
    assert worker.is_ready
    await fleet.math.stop()
    assert not await upstream.accepts(worker)
