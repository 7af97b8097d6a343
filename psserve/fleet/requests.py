"""Who asks a running fleet to change: callers of its control socket, and the zoo itself where it is watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from psserve.fleet.changes import Changes
from psserve.fleet.control_socket import ControlSocket
from psserve.fleet.jobs import Asker, Job, Jobs
from psserve.fleet.limits import Limits
from psserve.fleet.protocol import ChangeRequest, control_path
from psserve.fleet.roster import Roster
from psserve.fleet.spec import FleetPlan
from psserve.fleet.steps import Steps
from psserve.fleet.supply import Supply
from psserve.fleet.watch import ZooWatch


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
