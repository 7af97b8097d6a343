"""Runs a fleet: starts it, follows it, restarts what dies, and leaves nothing behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from psserve.errors import FleetError, StartError
from psserve.fleet.client import RouterClient, WorkerView
from psserve.fleet.logs import tail
from psserve.fleet.member import Member
from psserve.fleet.preload import starter_for
from psserve.fleet.prepare import clean_up, make_run_dir, prepare
from psserve.fleet.process import Starter, become_subreaper, sweep_descendants
from psserve.fleet.progress import Progress
from psserve.fleet.restarts import RestartPolicy
from psserve.fleet.spec import FleetPlan
from psserve.fleet.state import FleetState, ProcessId, clean_stale, fleet_lock, remove_state, write_state

_TICK_S = 0.1
_POLL_STARTING_S = 0.25
_POLL_SERVING_S = 1.0


@dataclass(frozen=True)
class Limits:
    """How long a supervisor waits, and how often it tries."""

    start_timeout_s: float = 300.0
    drain_s: float = 30.0
    """For the router to finish what it serves."""
    grace_s: float = 5.0
    """For servers after that. They hold nothing worth waiting for, and SGLang may take 20 s to follow a SIGTERM."""
    restarts: RestartPolicy = field(default_factory=RestartPolicy)


class Supervisor:
    """Owns its process while it runs: it takes the signals, and at the end kills every descendant. Main thread only."""

    def __init__(
        self,
        plan: FleetPlan,
        *,
        starter: Starter | None = None,
        progress: Progress | None = None,
        limits: Limits | None = None,
        on_ready: Callable[[str], None] = lambda url: None,
    ) -> None:
        self._plan = plan
        self._limits = limits or Limits()
        self._progress = progress or Progress()
        self._on_ready = on_ready
        starter = starter or starter_for(plan)
        self._router = Member(plan.router, starter, self._limits.restarts)
        self._servers = [Member(spec, starter, self._limits.restarts) for spec in plan.servers]
        self._client = RouterClient(plan.router.url, plan.router.config.get("api_key"))
        self._signals = 0
        self._ready = False
        self._saved: FleetState | None = None
        self._next_poll = 0.0
        self._warned = False

    @property
    def _members(self) -> list[Member]:
        return [*self._servers, self._router]

    def run(self) -> None:
        """Serve until a signal (SIGINT, SIGTERM, SIGHUP): the first one drains, a second one ends all at once.

        Raises:
            AlreadyRunning: another fleet of this zoo runs.
            StartError: a server ended before the fleet was ready, or it took too long, or a signal came first.
            FleetError: the router cannot be kept alive.
        """
        make_run_dir(self._plan.run_dir)
        with fleet_lock(self._plan.run_dir), self._taking_signals():
            for name in clean_stale(self._plan.run_dir):
                self._progress.note(f"ended {name}, left over from a supervisor that died")
            become_subreaper()
            try:
                prepare(self._plan)
                self._start()
                self._until_ready()
                self._until_signal()
            finally:
                self._progress.settle()
                self._shut_down()

    # --- coming up

    def _start(self) -> None:
        for member in self._members:
            member.start(self._plan.worker_key)
        self._save()

    def _until_ready(self) -> None:
        deadline = time.monotonic() + self._limits.start_timeout_s
        while not self._ready:
            for member in self._members:
                if member.ended():
                    raise self._start_failure(member)
            if self._signals:
                raise StartError("stopped before the fleet was ready")
            if time.monotonic() > deadline:
                raise self._start_timeout()
            self._observe(_POLL_STARTING_S)
            self._ready = all(member.state == "ready" for member in self._members)
            self._show()
            time.sleep(_TICK_S)
        self._progress.settle()
        self._save()
        self._on_ready(self._plan.router.url)

    def _start_failure(self, member: Member) -> StartError:
        member.state = "failed"
        self._progress.settle()
        self._progress.note(f"the last lines of {member.spec.log}:")
        for line in tail(member.spec.log):
            self._progress.note(f"  {line}")
        return StartError(f"{member.spec.name} {member.error} (log: {member.spec.log})")

    def _start_timeout(self) -> StartError:
        late = [member for member in self._members if member.state != "ready"]
        said = "; ".join(f"{member.spec.name}: {member.error or 'no answer yet'}" for member in late)
        return StartError(
            f"not ready after {self._limits.start_timeout_s:g} s: {said}"
            f" (logs: {late[0].spec.log.parent}; --start-timeout-secs waits longer)"
        )

    # --- serving

    def _until_signal(self) -> None:
        while not self._signals:
            for member in self._members:
                self._revive(member)
            self._observe(_POLL_SERVING_S)
            self._show()
            time.sleep(_TICK_S)

    def _revive(self, member: Member) -> None:
        """Restart a dead member when its time has come; give it up when it dies too often."""
        if member.restart_due():
            try:
                member.start(self._plan.worker_key)
                return
            except StartError as error:
                member.error = str(error)
        elif not member.ended():
            return
        delay = member.plan_restart()
        what = "given up after too many ends" if delay is None else f"restart in {delay:g} s"
        self._progress.note(f"{member.spec.name}: {member.error}; {what} (log: {member.spec.log})")
        if delay is None and member is self._router:
            raise FleetError(f"the router: {member.error}, too often to go on (log: {member.spec.log})")

    def _observe(self, every_s: float) -> None:
        """Learn from the router which servers answer real requests."""
        now = time.monotonic()
        if now < self._next_poll or not self._router.alive:
            return
        self._next_poll = now + every_s
        try:
            seen = self._client.workers()
        except FleetError as error:
            self._router.observe("down", str(error))
            return
        self._router.observe("ready", None)
        unknown = WorkerView(name="", state="starting", error="the router does not know it")
        for member in self._servers:
            view = seen.get(member.spec.name, unknown)
            member.observe(view.state, view.error)

    def _show(self) -> None:
        self._progress.update(self._members)
        self._save()

    def _save(self) -> None:
        """Write the state file when something changed. A full disk must not end the serving: warn once."""
        state = FleetState(
            url=self._plan.router.url,
            zoo=str(self._plan.zoo),
            base=self._plan.base,
            supervisor=ProcessId.own(),
            ready=self._ready,
            tmp_dir=str(self._plan.tmp_dir),
            servers=tuple(member.record() for member in self._members),
        )
        if state == self._saved:
            return
        try:
            write_state(self._plan.run_dir, state)
            self._saved = state
        except OSError as error:
            if not self._warned:
                self._progress.note(f"warning: cannot write the state file: {error}; status and stop may be wrong")
            self._warned = True

    # --- going down

    def _shut_down(self) -> None:
        """Router first, so that what it serves can finish; then the servers; then whatever is left."""
        before = min(self._signals, 1)  # a second one may have come while the first was not yet looked at
        drain_s = self._limits.drain_s + 1.0 if self._ready else 0.0  # the router itself stops at drain_s
        self._end([self._router], drain_s, before)
        self._end(self._servers, self._limits.grace_s, before)
        sweep_descendants()
        remove_state(self._plan.run_dir)
        clean_up(self._plan)

    def _end(self, members: Sequence[Member], grace_s: float, signals_before: int) -> None:
        """SIGTERM, then SIGKILL when `grace_s` is over or another signal came."""
        left = [member for member in members if member.alive]
        for member in left:
            member.terminate()
        deadline = time.monotonic() + grace_s
        while left and time.monotonic() < deadline and self._signals == signals_before:
            time.sleep(_TICK_S / 2)
            left = [member for member in left if not member.ended()]
        for member in left:
            member.kill()
        for member in members:
            member.state = "stopped"

    @contextmanager
    def _taking_signals(self) -> Iterator[None]:
        def count(number: int, frame: FrameType | None) -> None:
            self._signals += 1

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, count) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
