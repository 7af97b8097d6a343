"""Modules and workers that come and go while the router runs."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from psserve.contracts.router_config import RouterConfig
from psserve.errors import UsageError
from psserve.router.__main__ import reload
from tests.router.conftest import Fleet, eventually
from tests.router.fake_worker import FakeWorker

POEMS = {"name": "poems", "path": "/zoo/poems"}
EDITION_2 = {"name": "math", "aliases": ["maths"], "edition": 2}
CODE = {"name": "code", "path": "/zoo/code"}


@pytest.fixture
async def newcomer(fleet: Fleet) -> AsyncIterator[FakeWorker]:
    """A decode worker that runs, and that the router does not know yet."""
    worker = FakeWorker("newcomer", "decode", fleet.math.fabric, module="math")
    await worker.start()
    yield worker
    await worker.stop()


def entry(worker: FakeWorker, **fields: Any) -> dict[str, Any]:
    """The worker in the router's configuration."""
    return {"name": worker.name, "role": worker.role, "port": worker.port, "module": worker.module} | fields


def rewritten(fleet: Fleet, *added: dict[str, Any], without: FakeWorker | None = None, **fields: Any) -> RouterConfig:
    """The present configuration with other workers, and other `fields`."""
    document = fleet.state.config.model_dump()
    kept = [worker for worker in document["workers"] if without is None or worker["name"] != without.name]
    document |= {"workers": [*kept, *added], "serial": document["serial"] + 1}
    return RouterConfig.model_validate(document | fields)


def held(fleet: Fleet) -> list[int]:
    """Requests that each worker may still be needed for."""
    return [worker["held"] for worker in fleet.state.table.describe()]


async def modules(fleet: Fleet) -> list[str]:
    return [card["id"] for card in (await fleet.get("/v1/models"))[1]["data"]]


async def test_worker_on_standby_is_proven_and_gets_no_request(fleet: Fleet, newcomer: FakeWorker) -> None:
    fleet.state.reconfigure(rewritten(fleet, entry(newcomer, edition=2)))
    await fleet.ready()
    for _ in range(4):
        assert (await fleet.complete("math"))[0] == 200
    assert newcomer.bodies == []
    assert await modules(fleet) == ["math", "maths", "code"]


async def test_module_is_listed_and_served_from_one_step_to_the_next(fleet: Fleet, newcomer: FakeWorker) -> None:
    worker = entry(newcomer, module="poems")
    fleet.state.reconfigure(rewritten(fleet, worker))
    await fleet.ready()
    assert (await fleet.complete("poems"))[0] == 404
    listed = [*fleet.state.config.model_dump()["modules"], POEMS]
    fleet.state.reconfigure(rewritten(fleet, modules=listed))
    assert await modules(fleet) == ["math", "maths", "code", "poems"]
    assert (await fleet.complete("poems"))[0] == 200


async def test_replaced_module_finishes_on_the_old_worker_and_goes_on_with_the_new_one(
    fleet: Fleet, newcomer: FakeWorker
) -> None:
    fleet.state.reconfigure(rewritten(fleet, entry(newcomer, edition=2)))
    await fleet.ready()
    fleet.math.faults.append("error_mid_stream")  # holds its stream until it may proceed
    streamed = asyncio.create_task(fleet.stream())
    await eventually(lambda: fleet.math.running)
    fleet.state.reconfigure(rewritten(fleet, modules=[EDITION_2, CODE]))
    assert (await fleet.complete("math"))[0] == 200
    assert (len(fleet.math.bodies), len(newcomer.bodies)) == (1, 1)
    await eventually(lambda: held(fleet) == [0, 1, 0, 0])
    fleet.math.proceed.set()
    assert (await streamed)[0] == 200
    await eventually(lambda: held(fleet) == [0, 0, 0, 0])


async def test_all_answers_to_one_request_come_from_one_edition(fleet: Fleet, newcomer: FakeWorker) -> None:
    """The later ones start when the first one's prompt is computed: here, after the switch."""
    fleet.state.reconfigure(rewritten(fleet, entry(newcomer, edition=2)))
    await fleet.ready()
    held_back = asyncio.Event()

    async def prefilled_late(body: dict[str, Any]) -> None:
        await held_back.wait()
        await FakeWorker._pair(fleet.prefill, body)

    fleet.prefill._pair = prefilled_late  # type: ignore[method-assign]
    request = asyncio.create_task(fleet.complete("math", n=3))
    await eventually(lambda: fleet.math.running)
    fleet.state.reconfigure(rewritten(fleet, modules=[EDITION_2, CODE]))
    held_back.set()
    status, answer, _ = await request
    assert (status, len(answer["choices"])) == (200, 3)
    assert (len(fleet.math.bodies), len(newcomer.bodies)) == (3, 0)


async def test_removed_module_finishes_what_it_began(fleet: Fleet) -> None:
    fleet.math.faults.append("error_mid_stream")
    streamed = asyncio.create_task(fleet.stream())
    await eventually(lambda: fleet.math.running)
    fleet.state.reconfigure(rewritten(fleet, modules=[CODE]))
    assert await modules(fleet) == ["code"]
    status, answer, _ = await fleet.complete("math")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    fleet.math.proceed.set()
    assert (await streamed)[0] == 200


async def test_workers_that_stay_keep_their_state(fleet: Fleet, newcomer: FakeWorker) -> None:
    before = list(fleet.state.table.workers)
    fleet.state.reconfigure(rewritten(fleet, entry(newcomer, edition=2)))
    assert fleet.state.table.workers[:3] == before
    assert [worker.is_ready for worker in fleet.state.table.workers] == [True, True, True, False]


async def test_other_fields_need_a_restart(fleet: Fleet) -> None:
    before = fleet.state.config
    with pytest.raises(UsageError, match="api_key cannot change while the router runs"):
        fleet.state.reconfigure(rewritten(fleet, modules=[CODE], api_key="k"))
    assert fleet.state.config is before


async def test_series_of_modules_that_are_gone_are_gone(fleet: Fleet) -> None:
    await fleet.complete("math")
    await fleet.complete("code")
    await eventually(lambda: len(fleet.state.activity.ended) == 2)
    fleet.state.reconfigure(rewritten(fleet, without=fleet.math, modules=[CODE]))
    text = (await fleet.get("/metrics"))[1]
    assert "math" not in text
    assert 'psserve_prompt_tokens_total{module="code"}' in text


async def test_a_round_of_checks_that_fails_is_not_the_last(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tick = fleet.state.prober.tick
    rounds: list[int] = []

    def once_broken() -> None:
        rounds.append(1)
        if len(rounds) == 1:
            raise ZeroDivisionError
        tick()

    monkeypatch.setattr(fleet.state.prober, "tick", once_broken)
    await eventually(lambda: len(rounds) > 1)
    assert "a round of health checks failed by a bug" in caplog.text


async def started(path: Path) -> tuple[Process, str]:
    """A router with this file, and its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "psserve.router", "--config", path, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    return process, json.loads(await process.stdout.readline())["url"]


async def test_file_is_read_again_at_sighup_and_a_bad_one_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    path.write_text(fleet.state.config.model_dump_json())
    process, url = await started(path)

    async def told(http: aiohttp.ClientSession, route: str) -> Any:
        async with http.get(url + route) as answer:
            return await answer.json()

    async with aiohttp.ClientSession() as http:
        path.write_text(rewritten(fleet, modules=[CODE]).model_dump_json())
        process.send_signal(signal.SIGHUP)

        async def followed() -> bool:
            return bool((await told(http, "/workers"))["serial"] == 1)

        await eventually(followed)
        path.write_text("{")
        process.send_signal(signal.SIGHUP)
        assert [card["id"] for card in (await told(http, "/v1/models"))["data"]] == ["code"]
    process.terminate()
    _, log = await process.communicate()
    assert process.returncode == 0
    assert b"configuration not taken over" in log


async def test_a_file_with_another_serial_is_followed_without_a_signal(fleet: Fleet, tmp_path: Path) -> None:
    path, mounted = tmp_path / "router.json", tmp_path / "mounted.json"
    path.write_text(fleet.state.config.model_dump_json())
    mounted.symlink_to(path)
    process, url = await started(mounted)
    later = {number: tmp_path / f"{number}.json" for number in (1, 2)}
    later[1].write_text(rewritten(fleet, modules=[CODE]).model_dump_json())
    later[2].write_text(rewritten(fleet, serial=2).model_dump_json())
    async with aiohttp.ClientSession() as http:
        for number, listed in ((1, ["code"]), (2, ["math", "maths", "code"])):
            later[number].replace(path)

            async def followed(wanted: list[str] = listed) -> bool:
                async with http.get(url + "/v1/models") as answer:
                    return [card["id"] for card in (await answer.json())["data"]] == wanted

            await eventually(followed)
    process.terminate()
    assert (await process.communicate())[1].count(b"configuration serial=") == 2


async def test_a_file_with_the_same_serial_is_not(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    path.write_text(rewritten(fleet, modules=[CODE], serial=0).model_dump_json())
    reload(fleet.state, path, only_new=True)
    assert await modules(fleet) == ["math", "maths", "code"]
