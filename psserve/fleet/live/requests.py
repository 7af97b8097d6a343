"""Who asks a running fleet to change: callers of its control socket, and the zoo itself where it is watched."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from psserve.errors import PsserveError
from psserve.fleet.live.changes import Changes
from psserve.fleet.live.control_socket import ControlSocket
from psserve.fleet.live.supply import Supply
from psserve.fleet.live.swap import Steps
from psserve.fleet.live.watch import ZooWatch
from psserve.fleet.plan.spec import FleetPlan
from psserve.fleet.run.limits import Limits
from psserve.fleet.run.protocol import ChangeRequest, control_path
from psserve.fleet.run.roster import Roster


class Asker(Protocol):
    """Who waits for a change. It may have gone: the calls return at once and never fail."""

    def progress(self, text: str) -> None:
        """Something happened."""

    def done(self, text: str) -> None:
        """The change is made."""

    def failed(self, text: str) -> None:
        """It is not, and will not be."""


@dataclass
class Job:
    """One change. It is begun when its turn comes, so that it sees what the ones before have left."""

    title: str
    begin: Callable[[], Steps]
    asker: Asker


class Jobs:
    """Waiting changes and the one in progress."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._waiting: deque[Job] = deque()
        self._job: Job | None = None
        self._steps: Steps | None = None

    @property
    def busy(self) -> bool:
        return self._steps is not None

    def put(self, job: Job) -> None:
        before = [one.title for one in (self._job, *self._waiting) if one]
        self._waiting.append(job)
        if before:
            job.asker.progress(f"{job.title} waits for: {', '.join(before)}")

    def step(self) -> None:
        """Go on with the present change, or begin the next one."""
        if self._steps is None:
            if not self._waiting:
                return
            self._job = self._waiting.popleft()
            self._steps = self._job.begin()
        assert self._job is not None
        try:
            said = next(self._steps)
        except StopIteration as end:
            self._end(self._job.asker.done, str(end.value))
        except (PsserveError, OSError) as error:
            self._end(self._job.asker.failed, str(error))
        except Exception:  # noqa: BLE001 - a bug in a change must not end a fleet that serves
            sys.excepthook(*sys.exc_info())
            self._end(self._job.asker.failed, "a bug in psserve: the supervisor's log has the traceback")
        else:
            for line in (said or "").splitlines():
                self._note(line)
                self._job.asker.progress(line)

    def _end(self, tell: Callable[[str], None], text: str) -> None:
        assert self._job is not None
        self._note(f"{self._job.title}: {text}")
        self._job = self._steps = None
        tell(text)

    def give_up(self, reason: str) -> None:
        """Break off what is in progress, and refuse what waits."""
        if self._steps is not None:
            self._steps.close()
        for job in (self._job, *self._waiting):
            if job is not None:
                job.asker.failed(reason)
        self._waiting.clear()
        self._job = self._steps = None


class Requests:
    """Takes requests for changes and has them made one after the other, in steps that never wait."""

    def __init__(
        self, plan: FleetPlan, roster: Roster, supply: Supply, limits: Limits, note: Callable[[str], None]
    ) -> None:
        self._plan, self._roster, self._supply, self._limits, self._note = plan, roster, supply, limits, note
        self._jobs = Jobs(note)
        self._changes: Changes | None = None
        self._socket: ControlSocket | None = None
        self._watch: ZooWatch | None = None

    @property
    def busy(self) -> bool:
        """Whether a change is in progress."""
        return self._jobs.busy

    def open(self, weights: Mapping[str, str], *, watch: bool) -> None:
        """Listen from now on; a fleet that cannot serves all the same. `weights`: what each module is served with."""
        self._changes = Changes(self._roster, self._supply, self._limits, weights)
        self._watch = ZooWatch(self._plan.zoo) if watch else None
        try:
            self._socket = ControlSocket(control_path(self._plan.tmp_dir))
        except OSError as error:
            self._note(f"warning: no control socket ({error}): --live will not reach this fleet")

    def receive(self, *, starting: bool = False) -> None:
        """Take in what was asked since the last call; while the fleet is `starting` it has to wait."""
        for request, caller in self._socket.requests() if self._socket else ():
            if starting:
                caller.progress("the fleet is starting: the change follows")
            self._put(request, caller)
        if not starting and self._watch is not None and self._watch.changed():
            self._put(ChangeRequest(command="reload"), _Nobody())

    def step(self) -> None:
        """Go on with what is in progress."""
        self._jobs.step()

    def close(self) -> None:
        """Listen no more, and tell whoever waits."""
        self._jobs.give_up("the fleet is being stopped")
        if self._socket is not None:
            self._socket.close()

    def _put(self, request: ChangeRequest, asker: Asker) -> None:
        self._jobs.put(Job(request.title, lambda: self._begin(request), asker))

    def _begin(self, request: ChangeRequest) -> Steps:
        assert self._changes is not None, "requests are received once open"
        if request.module is None:
            return self._changes.keys() if request.command == "keys" else self._changes.reload()
        change = {"add": self._changes.add, "update": self._changes.update, "remove": self._changes.remove}
        return change[request.command](request.module)


class _Nobody:
    """Asks for a change and does not wait for its end; the supervisor's own notes tell of it."""

    def progress(self, text: str) -> None: ...

    def done(self, text: str) -> None: ...

    def failed(self, text: str) -> None: ...
