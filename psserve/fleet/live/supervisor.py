"""Runs a fleet: starts it, follows it, restarts what dies, changes it when asked, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from psserve.errors import StartError
from psserve.fleet.live.requests import Requests, ZooWatch
from psserve.fleet.live.supply import Supply, ZooSupply
from psserve.fleet.plan.spec import FleetPlan
from psserve.fleet.run.member import Limits, Member
from psserve.fleet.run.memory import MemoryUse, write_uses
from psserve.fleet.run.preload import starter_for
from psserve.fleet.run.prepare import clean_up, make_run_dir, prepare
from psserve.fleet.run.process import Starter, become_subreaper, sweep_descendants
from psserve.fleet.run.progress import StartProgress
from psserve.fleet.run.reachability import require_reachable
from psserve.fleet.run.roster import Roster
from psserve.fleet.run.state import (
    BEAT_S,
    FleetState,
    ProcessId,
    beat,
    clean_stale,
    fleet_lock,
    remove_state,
    write_state,
)
from psserve.signals import heeded

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_S = 0.1
_POLL_STARTING_S = 0.25
_POLL_SERVING_S = 1.0


class Supervisor:
    """Owns its process while it runs: it takes the signals, and at the end kills every descendant.

    All it does is done by one event loop in the main thread. What may take a while (asking the router, reading the
    zoo, writing checkpoints) is done in threads or other processes meanwhile; processes are only ever started by the
    main thread (see `Starter.start`).
    """

    def __init__(
        self,
        plan: FleetPlan,
        *,
        starter: Starter | None = None,
        supply: Supply | None = None,
        watch: ZooWatch | None = None,
        progress: StartProgress | None = None,
        limits: Limits | None = None,
        on_ready: Callable[[str], None] = lambda url: None,
    ) -> None:
        """`supply`: where live changes find modules [the plan's zoo].

        `watch`: what follows it without being asked. Made before the plan, it misses nothing that came since.
        """
        self._plan = plan
        self._limits = limits or Limits()
        self._progress = progress or StartProgress()
        self._on_ready = on_ready
        self._starter = starter or starter_for(plan)
        self._roster = Roster(plan, self._starter, self._limits.restarts, self._progress.note)
        supply = supply or ZooSupply(plan.zoo, plan.basis.options)
        self._requests = Requests(self._roster, supply, self._limits, self._progress.note, self._show)
        self._watch = watch
        self._signals = 0
        self._ready = False
        self._saved: FleetState | None = None
        self._uses: Mapping[str, MemoryUse] = {}
        self._warned = False

    def run(self) -> None:
        """Serve until a signal (SIGINT, SIGTERM, SIGHUP): the first one drains, a second one ends all at once.

        What this process was started to ignore it does, but for SIGTERM, with which `psserve stop` comes.

        Raises:
            AlreadyRunning: another fleet of this zoo runs.
            StartError: a server ended before the fleet was ready, or it took too long, or a signal came first.
            FleetError: the router cannot be kept alive.
        """
        make_run_dir(self._plan.run_dir)
        with fleet_lock(self._plan.run_dir):
            self.run_locked()

    def run_locked(self) -> None:
        """`run`, for whoever has made the run folder and holds the fleet's lock."""
        with _keeping_signal_handlers():
            asyncio.run(self._run())

    async def _run(self) -> None:
        for number in (signal.SIGTERM, *heeded(signal.SIGINT, signal.SIGHUP)):  # until the loop is closed
            asyncio.get_running_loop().add_signal_handler(number, self._count_signal)
        for name in await asyncio.to_thread(clean_stale, self._plan.run_dir):
            self._progress.note(f"ended {name}, left over from a supervisor that died")
        become_subreaper()
        beating = asyncio.create_task(self._beat())
        try:
            weights = await asyncio.to_thread(prepare, self._plan, self._check_signals)
            await require_reachable(self._plan, self._starter)
            await self._requests.open(weights, self._watch)
            self._check_signals()
            self._roster.start()
            self._save()
            await self._until_ready()
            await self._until_signal()
        finally:
            self._progress.settle()
            await self._shut_down()
            beating.cancel()

    async def _beat(self) -> None:
        """Beside all else, since a change or the end may take minutes."""
        while True:
            beat(self._plan.run_dir)
            await asyncio.sleep(BEAT_S)

    def _count_signal(self) -> None:
        self._signals += 1

    # --- coming up

    def _check_signals(self) -> None:
        if self._signals:
            raise StartError("stopped before the fleet was ready")

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + self._limits.start_timeout_s
        while not self._ready:
            for member in self._roster.members:
                if member.ended():
                    raise self._start_failure(member)
            self._check_signals()
            if any(member.awaits_files for member in self._roster.members):
                deadline = time.monotonic() + self._limits.start_timeout_s
            elif time.monotonic() > deadline:
                raise self._start_timeout()
            await self._roster.observe(_POLL_STARTING_S)
            self._ready = all(member.state == "ready" for member in self._roster.members)
            self._show()
            await asyncio.sleep(_TICK_S)
        self._progress.settle()
        with contextlib.suppress(OSError):  # on a full disk too the fleet serves
            self._roster.note_ready()
        self._save()
        self._requests.begin()  # who reads that it is ready may ask for a change at once
        self._on_ready(self._plan.router.url)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._roster.note_gpu_memory)

    def _start_failure(self, member: Member) -> StartError:
        member.state = "failed"
        self._progress.settle()
        for line in member.last_words():
            self._progress.note(line)
        return StartError(member.failure)

    def _start_timeout(self) -> StartError:
        late = [member for member in self._roster.members if member.state != "ready"]
        said = "; ".join(f"{member.spec.name}: {member.error or 'no answer yet'}" for member in late)
        return StartError(
            f"not ready after {self._limits.start_timeout_s:g} s: {said}"
            f" (logs: {late[0].spec.log.parent}; --start-timeout-secs waits longer)"
        )

    # --- serving

    async def _until_signal(self) -> None:
        while not self._signals:
            self._roster.revive()
            self._roster.end_stuck()
            self._requests.move_lost()
            await self._roster.observe(_POLL_STARTING_S if self._requests.busy else _POLL_SERVING_S)
            self._show()
            await asyncio.sleep(_TICK_S)
        self._progress.note(f"stopping: answers under way have {self._limits.drain_s:g} s; Ctrl-C again ends them")

    def _show(self) -> None:
        self._progress.update(self._roster.members)
        self._save()
        self._save_uses()

    def _save(self) -> None:
        """Write the state file when something changed. A full disk must not end the serving: warn once."""
        state = FleetState(
            url=self._plan.router.url,
            zoo=str(self._plan.zoo),
            base=self._plan.base,
            supervisor=ProcessId.own(),
            ready=self._ready,
            tmp_dir=str(self._plan.tmp_dir),
            servers=tuple(member.record() for member in self._roster.members),
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

    def _save_uses(self) -> None:
        """Write down what servers on other machines use of memory, when that changed."""
        seen = {member.spec.name: member.memory for member in self._roster.members}
        uses = {name: use for name, use in seen.items() if use is not None}
        if uses != self._uses:
            self._uses = uses
            with contextlib.suppress(OSError):  # status does not say it then
                write_uses(self._plan.run_dir, uses)

    # --- going down

    async def _shut_down(self) -> None:
        """Router first, so that what it serves can finish; then the servers; then whatever is left."""
        before = min(self._signals, 1)  # a second one may have come while the first was not yet looked at
        drain_s = self._limits.drain_s + 1.0 if self._ready else 0.0  # the router itself stops at drain_s
        await self._requests.close()
        await self._end([self._roster.router], drain_s, before)
        await self._end(
            [*self._roster.servers, *self._roster.coming, *self._roster.going], self._limits.grace_s, before
        )
        await asyncio.to_thread(self._starter.close)
        await asyncio.to_thread(sweep_descendants)
        remove_state(self._plan.run_dir)
        await asyncio.to_thread(clean_up, self._plan)

    async def _end(self, members: Sequence[Member], grace_s: float, signals_before: int) -> None:
        """SIGTERM, then SIGKILL when `grace_s` is over or another signal came."""
        left = [member for member in members if member.alive]
        for member in left:
            member.terminate()
        deadline = time.monotonic() + grace_s
        while left and time.monotonic() < deadline and self._signals == signals_before:
            await asyncio.sleep(_TICK_S / 2)
            left = [member for member in left if not member.ended()]
        for member in left:
            member.kill()
        for member in members:
            member.state = "stopped"


@contextlib.contextmanager
def _keeping_signal_handlers() -> Iterator[None]:
    """Put back at the end what handled the signals before."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
