"""What a fleet begins by itself, beside the changes that it is asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from psserve.fleet.live.requests import Requests
from psserve.fleet.plan.layout import run_dir, trials_path
from psserve.fleet.run.member import Limits, RestartPolicy
from psserve.fleet.run.prepare import make_run_dir
from psserve.fleet.run.process import SubprocessStarter
from psserve.fleet.run.protocol import ChangeRequest
from psserve.fleet.run.roster import Roster
from tests.fleet.fake_plan import plan_of

OTHER = ChangeRequest(command="remove", module="other")


def requests_of(folder: Path) -> Requests:
    """Of a fleet that serves a, in that folder. What these tests ask for starts no server and needs no zoo."""
    plan = plan_of(folder, {"prefill-0": [], "decode-a-0": []}, [1, 2, 3], folder)
    make_run_dir(plan.run_dir)
    supply: Any = None
    roster = Roster(plan, SubprocessStarter(), RestartPolicy())
    return Requests(roster, supply, Limits(), lambda text: None, lambda: None)


@pytest.fixture
async def requests(tmp_path: Path) -> AsyncIterator[Requests]:
    requests = requests_of(tmp_path)
    await requests.open({}, watch=None)
    requests.begin()
    yield requests
    await requests.close()


async def test_a_change_waits_for_what_the_fleet_has_begun_and_hears_of_it(requests: Requests) -> None:
    end, heard = asyncio.Event(), list[str]()
    requests.begin_own("another host for decode-a-0", end.wait)
    change = asyncio.create_task(requests.make(OTHER, heard.append))
    await asyncio.sleep(0)
    assert requests.busy
    assert not change.done()
    assert heard == ["remove other waits for: another host for decode-a-0"]
    end.set()
    assert (await change).done == "other is not served"
    assert not requests.busy


async def test_a_bug_in_what_the_fleet_has_begun_ends_only_that(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[type[BaseException]] = []
    monkeypatch.setattr("sys.excepthook", lambda kind, error, trace: told.append(kind))

    async def fails() -> None:
        raise ZeroDivisionError

    requests.begin_own("a move", fails)
    await asyncio.sleep(0)
    reply = await requests.make(OTHER, lambda text: None)
    assert reply.done
    assert told == [ZeroDivisionError]


async def test_closing_breaks_off_what_the_fleet_has_begun(requests: Requests) -> None:
    broken_off = False

    async def waits() -> None:
        nonlocal broken_off
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            broken_off = True
            raise

    requests.begin_own("a move", waits)
    await asyncio.sleep(0)
    await requests.close()
    assert broken_off
    assert not requests.busy


class LostServer:
    """One whose move is due, until it is asked for."""

    def __init__(self) -> None:
        self.left, self.moved = [SimpleNamespace(spec=SimpleNamespace(name="decode-a-0"))], list[str]()

    def due(self) -> list[Any]:
        due, self.left = self.left, []
        return due

    async def move(self, members: list[Any]) -> None:
        self.moved += [member.spec.name for member in members]


async def test_a_lost_server_is_moved_beside_no_change(requests: Requests) -> None:
    lost: Any = LostServer()
    requests._moves = lost
    end = asyncio.Event()
    requests.begin_own("a change", end.wait)
    requests.move_lost()
    end.set()
    assert requests._own is not None
    await requests._own
    assert lost.moved == []
    requests.move_lost()
    assert requests.busy
    assert requests._own is not None
    await requests._own
    assert lost.moved == ["decode-a-0"]


async def test_a_change_asked_for_at_the_start_waits_for_the_trials_of_before(tmp_path: Path) -> None:
    requests = requests_of(tmp_path)
    trial = {"module": "gone", "version": 2, "beside": 1, "share": 10.0, "shadow": False}
    trials_path(run_dir(tmp_path)).write_text(json.dumps([trial]))
    await requests.open({}, watch=None)
    change = asyncio.create_task(requests.make(OTHER, lambda text: None))
    await asyncio.sleep(0)
    requests.begin()
    assert (await change).done == "other is not served"
    assert not requests.busy
    await requests.close()
