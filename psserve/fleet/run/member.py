"""One process of a running fleet: its state, its ends and its restarts, and how patient its supervisor is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field, replace

from psserve.errors import HostLost
from psserve.fleet.plan.host import LOCAL
from psserve.fleet.plan.ports import listens
from psserve.fleet.plan.spec import ProcessSpec, ServerSpec
from psserve.fleet.run.memory import MemoryUse
from psserve.fleet.run.process import MOST_LINES, Handle, Starter, error_among, start_ticks
from psserve.fleet.run.state import ServerState, ServerStatus

WORDS = 12
"""Lines of a log that people are shown of a process that ended."""


@dataclass(frozen=True)
class RestartPolicy:
    """Wait 1, 2, 4 ... s (at most `longest_s`); give up beyond `limit` ends within `window_s`."""

    limit: int = 5
    window_s: float = 600.0
    first_s: float = 1.0
    longest_s: float = 30.0
    stuck_s: float = 300.0
    """A server that lives, and has not served for so long though others could work with it, is started anew."""
    lost_s: float = 2.0
    """Between two tries to start a server whose host is lost. They count for nothing: the server did not fail."""
    elsewhere_s: float = 60.0
    """A server whose host is lost for so long is started on another one, if it fits there."""


@dataclass
class Restarts:
    """The ends of one server. Times are monotonic seconds."""

    policy: RestartPolicy
    total: int = 0
    """Restarts granted so far."""
    _ends: list[float] = field(default_factory=list)

    def delay(self, now: float) -> float | None:
        """Note that the server ended now. Returns seconds to wait before the restart, None to give up."""
        self._ends = [end for end in self._ends if now - end < self.policy.window_s]
        if len(self._ends) >= self.policy.limit:
            return None
        self._ends.append(now)
        self.total += 1
        return min(self.policy.first_s * 2.0 ** (len(self._ends) - 1), self.policy.longest_s)


@dataclass(frozen=True)
class Limits:
    """The patience of one supervisor."""

    start_timeout_s: float = 300.0
    """For the fleet to become ready, and for the servers of a live change, once they have the files they are sent."""
    drain_s: float = 30.0
    """For the router to finish what it serves, and for a server that is replaced or removed."""
    grace_s: float = 5.0
    """For servers after that. They hold nothing worth waiting for, and SGLang may take 20 s to follow a SIGTERM."""
    restarts: RestartPolicy = field(default_factory=RestartPolicy)


class Member:
    """Follows one spec through starts and ends.

    starting --router says ready--> ready <--router says--> down
       ^                              |
       |-- restarting <---- exits ----|      failed: ended too often; stopped: told to end;
       '-- lost <---- its host goes --'      draining: gets no new requests, and ends after its last one
    """

    def __init__(self, spec: ProcessSpec, starter: Starter, policy: RestartPolicy) -> None:
        self.spec = spec
        self.state: ServerStatus = "stopped"
        self.error: str | None = None
        self._starter = starter
        self._restarts = Restarts(policy)
        self._handle: Handle | None = None
        self._ticks: int | None = None
        self._last: Handle | None = None
        """Of its latest process, which may have ended."""
        self._host_is_lost = False
        self._lost_since = 0.0
        self._was_to_move = False
        """Since its host was lost."""
        self._started: float | None = None
        self._since = time.monotonic()
        self._restart_at = 0.0
        self._stuck_since: float | None = None

    @property
    def alive(self) -> bool:
        return self._handle is not None

    @property
    def awaits_files(self) -> bool:
        """Whether its start waits for files that are being sent to its host."""
        return self._handle is not None and self._handle.awaits_files

    @property
    def memory(self) -> MemoryUse | None:
        """What it was last seen to use on another machine, if anything is known."""
        return self._handle.memory() if self._handle else None

    @property
    def seconds(self) -> float:
        """Seconds since its latest start."""
        return time.monotonic() - self._since

    def start(self, worker_key: str) -> None:
        """Start the process.

        Raises:
            StartError: its command cannot be run, or its host is lost.
        """
        spec = self.spec
        if isinstance(spec, ServerSpec):
            with contextlib.suppress(OSError):  # not there, or on another machine, whose agent sees to it
                spec.rendezvous.unlink()
            spec = replace(spec, env={**spec.env, "PSSERVE_WORKER_KEY": worker_key})
        try:
            self._handle = self._last = self._starter.start(spec)
        except HostLost as error:
            self._host_is_lost, self.error = True, str(error)
            raise
        self._host_is_lost = False
        self._ticks = None
        self._started, self._since = time.time(), time.monotonic()
        self.state = "starting"

    def ended(self) -> bool:
        """Whether the process has ended, or its host was lost, since it was last asked; then `error` says how."""
        handle = self._handle
        if handle is None:
            return False
        if handle.is_lost:
            self._host_is_lost, self.error = True, f"its host {self.spec.host_name} is lost"
        elif (code := handle.poll()) is not None:
            self.error = f"{_how(code)}: {error_among(handle.tail(MOST_LINES))}"
        else:
            return False
        self._handle = None
        return True

    def plan_restart(self) -> float | None:
        """After an end: wait for the restart, or give up. Returns the wait in seconds."""
        now = time.monotonic()
        if self._host_is_lost:
            delay: float | None = self._restarts.policy.lost_s
            if self.state != "lost":
                self.state, self._lost_since, self._was_to_move = "lost", now, False
        else:
            delay = self._restarts.delay(now)
            self.state = "failed" if delay is None else "restarting"
        self._restart_at = now + (delay or 0.0)
        return delay

    def restart_due(self) -> bool:
        return self.state in ("restarting", "lost") and time.monotonic() >= self._restart_at

    def wants_elsewhere(self) -> bool:
        """Whether its host has been lost for so long that another one is to run it. Asked again as long after."""
        if not self._is_long_lost:
            return False
        self._lost_since, self._was_to_move = time.monotonic(), True
        return True

    @property
    def is_overdue(self) -> bool:
        """Whether `wants_elsewhere` would be true for the first time since its host was lost."""
        return self._is_long_lost and not self._was_to_move

    @property
    def _is_long_lost(self) -> bool:
        return self.state == "lost" and time.monotonic() - self._lost_since >= self._restarts.policy.elsewhere_s

    def move(self, spec: ProcessSpec) -> None:
        """Have it started elsewhere, which is due at once."""
        self.spec, self.state = spec, "restarting"  # no longer lost: its new host is not
        self._restart_at = 0.0

    async def observe(self, state: str, error: str | None) -> None:
        """Take over what the router sees of a living process that is not about to end.

        The router may not know yet that an idle server died: one just restarted is not ready before it listens.
        """
        if not self.alive or self.state == "draining":
            return
        if state == "ready":
            if self.state == "ready" or await self._listens():
                self.state, self.error = "ready", None
        elif self.state == "ready":
            self.state, self.error = "down", error
        else:
            self.error = error or self.error

    async def _listens(self) -> bool:
        """Whether this very process, in this very state, is reached at its port."""
        before = self._handle, self.state
        return await asyncio.to_thread(listens, self.spec.host, self.spec.port) and before == (self._handle, self.state)

    def is_stuck(self, could_serve: bool) -> bool:
        """Whether it served once and, alive, has not for the policy's `stuck_s`, in which it always `could_serve`.

        To be asked all the time. What it says once it does not repeat.
        """
        if self.state != "down" or not could_serve:
            self._stuck_since = None
            return False
        now = time.monotonic()
        self._stuck_since = self._stuck_since or now
        if now - self._stuck_since < self._restarts.policy.stuck_s:
            return False
        self._stuck_since = None
        return True

    def hang_up(self) -> None:
        """SIGHUP: for the router, to read its configuration again."""
        if self._handle and self._handle.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._handle.pid, signal.SIGHUP)

    def terminate(self) -> None:
        if self._handle:
            self._handle.terminate()

    def kill(self) -> None:
        if self._handle:
            self._handle.kill()

    @property
    def failure(self) -> str:
        """The reason why it did not become ready, in one line."""
        return f"{self.spec.name} {self.error or 'gave no answer yet'} (log: {self.spec.log})"

    def last_words(self) -> list[str]:
        """The end of what its latest process logged, for people."""
        said = self._last.tail(WORDS) if self._last else []
        return [f"the last lines of {self.spec.log}:", *(f"  {line}" for line in said)]

    def record(self) -> ServerState:
        spec = self.spec
        pid = self._handle.pid if self._handle and spec.host_name == LOCAL else None
        if pid is not None and self._ticks is None:
            self._ticks = start_ticks(pid)
        return ServerState(
            name=spec.name,
            role=spec.role,
            module=spec.module if isinstance(spec, ServerSpec) else None,
            pid=pid,
            ticks=self._ticks if pid is not None else None,
            host=spec.host_name,
            address=spec.host,
            port=spec.port,
            device=spec.device if isinstance(spec, ServerSpec) else "cpu",
            tool_call_parser=spec.parsers.tool_calls if isinstance(spec, ServerSpec) else None,
            reasoning_parser=spec.parsers.reasoning if isinstance(spec, ServerSpec) else None,
            state=self.state,
            restarts=self._restarts.total,
            started=self._started,
            error=self.error,
            log=str(spec.log),
        )


def _how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exited with code {code}"
