"""Which URLs are a fleet's, what opens its router, and how long its end is waited for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from psserve.errors import FleetError
from psserve.fleet.observe import control
from psserve.fleet.observe.control import Access, access_of, is_at, stop_fleet
from psserve.fleet.run.process import start_ticks
from psserve.fleet.run.state import FleetState, ProcessId, write_state


@pytest.mark.parametrize(
    ("known", "asked", "is_its"),
    [
        ("https://127.0.0.1:30000", "https://127.0.0.1:30000/", True),
        ("https://127.0.0.1:30000", "https://localhost:30000", True),
        ("https://127.0.0.1:30000", "http://127.0.0.1:30000", False),
        ("https://127.0.0.1:30000", "https://127.0.0.1:30001", False),
        ("https://127.0.0.1:30000", "https://127.0.0.2:30000", False),
        ("https://127.0.0.1:30000", "https://127.0.0.1:30000/other", False),
        ("https://127.0.0.1:30000", "https://127.0.0.1:x", False),
        ("https://0.0.0.0:30000", "https://0.0.0.0:30000", True),
        ("https://0.0.0.0:30000", "https://localhost:30000", True),
        ("https://[::]:30000", "https://[::1]:30000", True),
        ("https://0.0.0.0:30000", "https://10.0.0.7:30000", False),
        ("https://0.0.0.0:30000", "127.0.0.1:30000", False),
    ],
)
def test_a_url_is_the_fleets_if_this_machine_reaches_it_there(known: str, asked: str, is_its: bool) -> None:
    fleet = FleetState(url=known, zoo="z", base="b", supervisor=ProcessId.own(), ready=True, tmp_dir="t", servers=())
    assert is_at(fleet, asked) is is_its


def test_a_fleet_opens_to_its_user_with_its_own_key_unless_one_is_given(tmp_path: Path) -> None:
    (tmp_path / ".run").mkdir()
    assert access_of(tmp_path) == Access()
    told = {"operator_key": "its own", "ssl_certfile": "/c.pem"}
    (tmp_path / ".run" / "router.json").write_text(json.dumps(told))
    assert access_of(tmp_path) == Access("its own", Path("/c.pem"))
    assert access_of(tmp_path, "given") == Access("given", Path("/c.pem"))


class Clock:
    """Time that passes in sleep alone, until a supervisor that heeds no signal ends."""

    def __init__(self, supervisor: subprocess.Popen[bytes], ends_at_s: float) -> None:
        self.now, self._supervisor, self._ends_at_s = 0.0, supervisor, ends_at_s

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self._ends_at_s:
            self._supervisor.kill()
            self._supervisor.wait()


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The supervisor of a fleet of `tmp_path`."""
    command = ["sh", "-c", "trap '' TERM; echo; exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        supervisor.stdout.readline()
        ticks = start_ticks(supervisor.pid)
        assert ticks is not None
        own = ProcessId(pid=supervisor.pid, ticks=ticks)
        state = FleetState(url="u", zoo=str(tmp_path), base="b", supervisor=own, ready=True, tmp_dir="t", servers=())
        (tmp_path / ".run").mkdir()
        write_state(tmp_path / ".run", state)
        yield supervisor
        supervisor.kill()


def may_go_on(zoo: Path, drain_s: float) -> None:
    """Requests of its fleet, for so long."""
    (zoo / ".run" / "router.json").write_text(json.dumps({"drain_timeout_s": drain_s}))


def test_stop_waits_as_long_as_requests_of_the_fleet_may_go_on(
    tmp_path: Path, deaf: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on(tmp_path, 300)
    monkeypatch.setattr(control, "time", Clock(deaf, ends_at_s=310))
    assert stop_fleet(tmp_path).supervisor.pid == deaf.pid


@pytest.mark.parametrize(("drain_s", "now", "waited_s"), [(30, False, 90), (300, True, 60)])
def test_stop_waits_no_longer(
    tmp_path: Path,
    deaf: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    drain_s: float,
    now: bool,
    waited_s: float,
) -> None:
    may_go_on(tmp_path, drain_s)
    monkeypatch.setattr(control, "time", Clock(deaf, ends_at_s=310))
    with pytest.raises(FleetError, match=f"has not ended after {waited_s} s"):
        stop_fleet(tmp_path, now=now)
