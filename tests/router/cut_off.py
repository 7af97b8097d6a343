"""A router whose workers' machine is cut off in the middle of a stream: run in a network namespace of its own.

`unshare -Urn python -m tests.router.cut_off` prints, as JSON, what clients heard whose worker was away for a while,
what they heard when it stayed away, and how a body ended that was on its way to it. Clients come by a Unix socket, so
only workers are cut off.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import struct
import tempfile
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import aiohttp
import uvloop
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from psserve.contracts.router_config import WorkerConfig
from psserve.router.access.server import make_runner
from psserve.router.app import make_app
from psserve.router.state import STATE
from psserve.router.workers.failures import LegFailure
from psserve.router.workers.workers import Worker
from tests.router.conftest import Fleet, eventually, make_config, make_workers

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
QUIET_S = 4.0
SHORT_CUT_S = 10.0


def loopback(*, up: bool) -> None:
    """Switch the namespace's only network on or off."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP * up))


async def main() -> None:
    loopback(up=True)
    workers = make_workers()
    for worker in workers:
        await worker.start()
    config = make_config(*workers)
    app = make_app(config)
    runner = make_runner(app, config.limits, 0.1)
    await runner.setup()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "router")
        await web.UnixSite(runner, path).start()
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as http:
            fleet = Fleet(*workers, "http://localhost", http, app[STATE])
            heard = [await cut(fleet, for_good=for_good) for for_good in (False, True)]
            unread = await cut_while_sending(fleet)
    print(json.dumps([*heard, unread]))
    await runner.cleanup()


async def cut(fleet: Fleet, *, for_good: bool) -> dict[str, Any]:
    """Begin a stream and an answer in one piece, cut their workers off, until the router has noticed or `for_good`."""
    await fleet.ready()
    assert (await fleet.complete())[0] == 200  # so that the next one gets a connection that has served before
    fleet.math.proceed.clear()
    whole = None
    if for_good:
        fleet.math.faults.append("hang_paired")
        whole = asyncio.create_task(fleet.complete(large="x" * 100_000))  # more than the kernel holds of what is unread
        await eventually(lambda: fleet.math.running and not fleet.prefill.running)
    fleet.math.faults.append("error_mid_stream")
    body = {"model": "math", "prompt": "some prompt", "max_tokens": 3, "stream": True}
    async with fleet.http.post(fleet.url + "/v1/completions", json=body) as response:
        await response.content.readany()
        await asyncio.sleep(QUIET_S)  # the last sign from the worker's machine need not be of the moment of the cut
        loopback(up=False)
        mended = None if for_good else asyncio.create_task(asyncio.to_thread(mend_later))
        began = monotonic()
        await eventually(lambda: not any(worker.is_ready for worker in fleet.state.table.workers))
        meanwhile = await fleet.complete()
        if mended is not None:
            await mended
            fleet.math.proceed.set()
        stream = (await response.read()).decode()
    answer = None if whole is None else await whole
    loopback(up=True)
    return {
        "meanwhile": code(meanwhile),
        "whole": answer and code(answer),
        "stream": json.loads(stream.removeprefix("data: "))["error"]["code"],
        "reasons": await reasons(fleet),
        "heard_after_s": round(monotonic() - began, 1),
    }


def mend_later() -> None:
    """Switch the network on again after a while, by a thread of its own: the test's work must not delay it."""
    sleep(SHORT_CUT_S)
    loopback(up=True)


async def cut_while_sending(fleet: Fleet) -> dict[str, Any]:
    """Cut a worker off that does not read, with a body under way to it that is more than the kernels hold."""
    await fleet.ready()
    with socket.create_server(("127.0.0.1", 0)) as server:
        worker = Worker(WorkerConfig(name="deaf", role="decode", module="math", port=server.getsockname()[1]))
        post = fleet.state.upstream.post(worker, "/", b" " * 64 * 1024 * 1024, {}, fresh=True)
        posting = asyncio.create_task(post)
        with (await asyncio.to_thread(server.accept))[0]:
            await asyncio.sleep(QUIET_S)
            loopback(up=False)
            began = monotonic()
            failure = (await asyncio.gather(posting, return_exceptions=True))[0]
            assert isinstance(failure, LegFailure), failure
            loopback(up=True)
    return {"reason": failure.reason, "heard_after_s": round(monotonic() - began, 1)}


def code(answer: Any) -> str:
    """The code of an error."""
    return str(answer[1]["error"]["code"])


async def reasons(fleet: Fleet) -> list[str]:
    """Why legs have failed so far."""
    page = (await fleet.get("/metrics"))[1]
    samples = [one for family in text_string_to_metric_families(page) for one in family.samples]
    return [one.labels["reason"] for one in samples if one.name == "psserve_leg_failures_total" and one.value]


if __name__ == "__main__":
    uvloop.run(main())
