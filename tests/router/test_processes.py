"""A router of several processes on one port: each serves, and what one is asked or told is of all and for all."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from psserve.contracts.router_config import RouterConfig
from psserve.router.siblings import divided, merged_views
from tests.router.conftest import Fleet, eventually
from tests.router.test_process import refuses

CODE = {"name": "code", "path": "/zoo/code"}


@dataclass
class Several:
    """A router of two processes before the workers of a fleet."""

    process: Process
    url: str
    path: Path

    async def get(self, route: str) -> Any:
        """What a client of its own gets: on a new connection, which either process may have."""
        async with aiohttp.ClientSession() as http, http.get(self.url + route) as answer:
            assert answer.status == 200, await answer.text()
            return await (answer.json() if answer.content_type == "application/json" else answer.text())

    async def complete(self) -> bytes:
        body = {"model": "math", "prompt": "some prompt", "max_tokens": 3}
        async with aiohttp.ClientSession() as http, http.post(f"{self.url}/v1/completions", json=body) as answer:
            assert answer.status == 200
            return await answer.read()

    async def ready(self) -> None:
        async def check() -> bool:
            return all(worker["state"] == "ready" for worker in (await self.get("/workers"))["workers"])

        await eventually(check)

    async def served(self) -> dict[str, float]:
        """Process -> requests that it has answered."""
        page = text_string_to_metric_families(await self.get("/metrics"))
        samples = [sample for family in page for sample in family.samples]
        return {
            sample.labels["process"]: sample.value
            for sample in samples
            if sample.name == "psserve_requests_total" and sample.labels["route"] == "completions"
        }


@pytest.fixture
async def several(fleet: Fleet, tmp_path: Path) -> AsyncIterator[Several]:
    path = tmp_path / "router.json"
    path.write_text(document(fleet))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "psserve.router", "--config", path, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    router = Several(process, json.loads(await process.stdout.readline())["url"], path)
    await router.ready()
    yield router
    if process.returncode is None:
        process.kill()
    await process.communicate()


def document(fleet: Fleet, **fields: Any) -> str:
    return RouterConfig.model_validate(
        fleet.state.config.model_dump() | {"router_workers": 2} | fields
    ).model_dump_json()


async def serve_by_both(several: Several) -> int:
    """Send requests until each process has answered one. Returns how many there were."""
    sent = 0
    while len(await several.served()) < 2:
        await several.complete()
        sent += 1
    return sent


async def test_each_serves_and_the_metrics_are_of_all(several: Several) -> None:
    sent = await serve_by_both(several)
    served = await several.served()
    assert served.keys() == {"0", "1"}

    async def all_counted() -> bool:
        return sum((await several.served()).values()) == sent

    await eventually(all_counted)


async def test_it_is_ready_once_all_are(several: Several, fleet: Fleet) -> None:
    assert (await several.get("/readiness")) == {"status": "ready"}
    await fleet.prefill.stop()

    async def none_is() -> bool:
        async with aiohttp.ClientSession() as http, http.get(f"{several.url}/readiness") as answer:
            return answer.status == 503

    await eventually(none_is)
    await fleet.prefill.start()
    await several.ready()
    assert (await several.get("/readiness")) == {"status": "ready"}


async def test_a_new_configuration_is_followed_once_all_follow_it(several: Several, fleet: Fleet) -> None:
    new = several.path.with_name("new")
    new.write_text(document(fleet, modules=[CODE], serial=1))
    new.replace(several.path)
    several.process.send_signal(signal.SIGHUP)

    async def followed() -> bool:
        return bool((await several.get("/workers"))["serial"] == 1)

    await eventually(followed)
    for _ in range(20):
        assert [card["id"] for card in (await several.get("/v1/models"))["data"]] == ["code"]


async def test_requests_under_way_are_finished_and_told_of_together(several: Several, fleet: Fleet) -> None:
    fleet.math.faults.extend(["wrong_count"] * 8)  # any fault of a stream: it waits after its first event
    body = {"model": "math", "prompt": "some prompt", "max_tokens": 3, "stream": True}
    async with AsyncExitStack() as stack:
        answers = []
        for _ in range(8):
            http = await stack.enter_async_context(aiohttp.ClientSession())
            answer = await stack.enter_async_context(http.post(f"{several.url}/v1/completions", json=body))
            await answer.content.readany()
            answers.append(answer)
        entries = {entry["name"]: entry for entry in (await several.get("/workers"))["workers"]}
        assert entries[fleet.math.name]["held"] == 8
        several.process.send_signal(signal.SIGTERM)
        await eventually(lambda: refuses(several.url))
        fleet.math.proceed.set()
        for answer in answers:
            assert b"split_mismatch" in await answer.read()  # it ran to its end
    assert await several.process.wait() == 0


async def test_the_dashboard_shows_the_first_process_whoever_is_asked(several: Several) -> None:
    assert len({(await several.get("/dashboard/data"))["boot"] for _ in range(20)}) == 1


async def test_with_one_that_dies_the_router_ends(several: Several) -> None:
    children = psutil.Process(several.process.pid).children()
    assert len(children) == 2
    children[1].kill()
    assert await several.process.wait() == 1
    assert not any(child.is_running() for child in children)


async def test_a_router_that_is_killed_leaves_nobody_on_its_port(several: Several) -> None:
    children = psutil.Process(several.process.pid).children()
    several.process.kill()
    await several.process.communicate()
    await eventually(lambda: not any(child.is_running() for child in children))


async def test_a_port_that_is_taken_is_one_line(several: Several, fleet: Fleet) -> None:
    port = int(several.url.rpartition(":")[2])
    second = several.path.with_name("second.json")
    second.write_text(document(fleet, port=port))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "psserve.router", "--config", second, stdout=PIPE, stderr=PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"cannot listen" in err
    assert b"Traceback" not in err


def worker(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "state": "ready", "running": 1, "held": 2, "error": None, "breaker": "closed"} | fields


def test_a_worker_is_as_the_process_sees_it_that_sees_it_worst() -> None:
    views = [
        {"workers": [worker("a"), worker("b")], "adapters": {"x@1": 1}, "serial": 4},
        {"workers": [worker("a", state="down", error="gone", breaker="open")], "adapters": {"x@1": 2}, "serial": 3},
    ]
    assert merged_views(views) == {
        "workers": [
            worker("a", state="down", error="gone", breaker="open", running=2, held=4),
            worker("b", state="starting"),
        ],
        "adapters": {"x@1": 3},
        "serial": 3,
    }


def test_limits_are_divided_among_processes(fleet: Fleet) -> None:
    key = {"name": "ci", "digest": "0" * 64, "requests_per_minute": 9, "concurrent_requests": 1}
    whole = RouterConfig.model_validate_json(document(fleet, keys=[key], limits={"connections": 11}, router_workers=4))
    part = divided(whole)
    assert part.limits.connections == 3
    assert part.queue.window_requests == 32
    assert part.keys is not None
    limits = part.keys[0]
    assert (limits.requests_per_minute, limits.concurrent_requests, limits.tokens_per_minute) == (3, 1, None)
    assert {one.kv_tokens for one in part.workers} == {512}  # of 2048
    assert part.kv_pool_tokens == 2048  # what one request may have


def test_routers_and_their_processes_divide_alike(fleet: Fleet) -> None:
    limits = {"connections": 12}
    several = RouterConfig.model_validate_json(document(fleet, limits=limits, router_workers=2, replicas=3))
    alone = RouterConfig.model_validate_json(document(fleet, limits=limits, router_workers=6))
    assert divided(several).limits == divided(alone).limits
    assert divided(several).limits.connections == 2
    assert divided(several).workers == divided(alone).workers


def test_several_processes_deal_sessions_out_by_name_unless_told_otherwise() -> None:
    base = {"name": "b", "path": "", "vocab_size": 2, "context_length": 2}
    given = {"worker_key": "k", "base": base, "modules": [], "workers": []}
    assert RouterConfig.model_validate(given).prefill_policy == "prefix"
    assert RouterConfig.model_validate(given | {"router_workers": 2}).prefill_policy == "session"
    assert RouterConfig.model_validate(given | {"replicas": 2}).prefill_policy == "session"
    asked = given | {"router_workers": 2, "prefill_policy": "prefix"}
    assert RouterConfig.model_validate(asked).prefill_policy == "prefix"
