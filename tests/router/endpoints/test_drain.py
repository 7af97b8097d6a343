"""Servers that leave: they finish what they have, and get nothing new."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from psserve.engine.settings import WORKER_KEY
from psserve.fleet.manifests.drain import HOST, ROUTERS
from psserve.fleet.manifests.drain import drain as drain_pod
from tests.ports import own_ports
from tests.router.conftest import Fleet, eventually

KEY = {"Authorization": "Bearer worker-secret"}
HERE = {"host": "127.0.0.1"}


async def test_a_server_that_leaves_gets_nothing_new(fleet: Fleet) -> None:
    math, code = fleet.state.table.decodes
    math.leaves = True
    assert (await fleet.complete("math"))[0] == 503
    assert (await fleet.complete("code"))[0] == 200
    assert not math.is_ready
    assert code.is_ready


async def test_what_it_has_it_finishes(fleet: Fleet) -> None:
    fleet.math.faults.append("hang")
    asking = asyncio.create_task(fleet.complete("math"))
    await eventually(lambda: fleet.state.table.decodes[0].running)
    status, answer, _ = await fleet.post("/workers/drain", HERE, headers=KEY)
    assert status == 200
    assert answer["workers"] == 3
    assert answer["running"] >= 1
    assert not asking.done()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await fleet.idle()
    assert (await fleet.post("/workers/drain", HERE, headers=KEY))[1] == {"workers": 3, "running": 0}


async def test_its_successor_is_taken_in(fleet: Fleet) -> None:
    math = fleet.state.table.decodes[0]
    math.leaves = True
    await fleet.math.stop()
    await eventually(lambda: math.state == "down")
    assert not math.leaves
    await fleet.math.start()
    await eventually(lambda: math.is_ready)
    assert (await fleet.complete("math"))[0] == 200


async def test_another_host_leaves_ours_alone(fleet: Fleet) -> None:
    assert (await fleet.post("/workers/drain", {"host": "elsewhere"}, headers=KEY))[1] == {"workers": 0, "running": 0}
    assert all(worker.is_ready for worker in fleet.state.table.workers)


@pytest.mark.parametrize("header", ["", "Bearer wrong", "Bearer schlüssel"])
async def test_only_servers_may_say_so(fleet: Fleet, header: str) -> None:
    status, answer, _ = await fleet.post("/workers/drain", HERE, headers={"Authorization": header})
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert all(worker.is_ready for worker in fleet.state.table.workers)


async def test_a_body_of_another_form_is_refused(fleet: Fleet) -> None:
    assert (await fleet.post("/workers/drain", {"name": "decode-math-0"}, headers=KEY))[0] == 400


async def test_a_pods_program_waits_for_what_its_servers_have(fleet: Fleet) -> None:
    fleet.math.faults.append("hang")
    asking = asyncio.create_task(fleet.complete("math"))
    await eventually(lambda: fleet.state.table.decodes[0].running)
    env = {**os.environ, ROUTERS: fleet.url, HOST: HERE["host"], WORKER_KEY: "worker-secret"}
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "psserve.fleet.manifests.drain", "600", "60", env=env
    )
    await eventually(lambda: fleet.state.table.decodes[0].leaves)
    assert program.returncode is None
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert await program.wait() == 0


def test_a_pods_program_waits_for_no_router_that_is_gone() -> None:
    assert not drain_pod(f"http://127.0.0.1:{own_ports(1)[0]}", HERE["host"], "worker-secret", 600, 0.1, again_s=0)
