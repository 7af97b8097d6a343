"""Starting processes on the machines of a Ray cluster, through a bridge that is replaced when it ends."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Literal

from psserve.errors import FleetError, HostLost, StartError
from psserve.fleet.plan import layout
from psserve.fleet.plan.host import LOCAL
from psserve.fleet.plan.spec import FleetPlan, ServerSpec
from psserve.fleet.ray.client import BridgeClient
from psserve.fleet.ray.messages import HostView, Order, Run, RunView, Task
from psserve.fleet.run.memory import MemoryUse
from psserve.fleet.run.process import Handle, Runnable, SubprocessStarter

_CLOSED_S = 20.0
_ENTERED_S = 20.0
"""For a new bridge to import Ray and to enter the cluster. psserve stop does not wait much longer."""
_AGAIN_S = 1.0
"""Before a bridge that has ended is replaced; then twice as long each time, until one has seen something."""
_LONGEST_S = 16.0
_CONNECTED_S = 120.0
CLAIM_S = 10.0
"""What a machine that was lost went on running is ended, if it has not been started again by then."""


class RayStarter:
    """Starts what belongs on this machine as a child, and all else on its own machine of the cluster.

    Used by the supervisor's main thread alone. A bridge that ends takes nothing with it: the next one finds the agents,
    and is told again whatever nobody has seen done.
    """

    def __init__(
        self, task: Task, plan: FleetPlan, log: Path, connect: Callable[[Task, Path], BridgeClient] = BridgeClient
    ) -> None:
        """`log`: of the bridges."""
        self._task = task
        self._ships = plan.basis.options.cluster is not None and plan.basis.options.cluster.files == "ship"
        self._tmp = {host.name: layout.tmp_dir(plan.zoo, host.tmp) for host in plan.basis.hosts}
        """Machine -> the private folder of this fleet there."""
        self._logs = plan.run_dir / "logs"
        """Of machines that share the zoo."""
        self._on_cpu = all(server.device == "cpu" for server in plan.servers)
        self._log = log
        self._connect = connect
        self._local = SubprocessStarter()
        self._bridge: BridgeClient | None = None
        self._replace_at, self._delay_s = 0.0, _AGAIN_S
        self._sees = False
        """Whether the bridge there is has seen a machine."""
        self._seen: set[str] = set()
        """Machines of which something was told."""
        self._lost: dict[str, str] = {}
        """Machine -> why it is lost."""
        self._handles: dict[tuple[str, str], RayHandle] = {}
        """The latest of each machine and name of a process."""
        self._numbers = count(1)
        self._launch = secrets.token_hex(4)

    @property
    def lost_hosts(self) -> frozenset[str]:
        self.listen()
        return frozenset(self._lost)

    def start(self, spec: Runnable) -> Handle:
        """See Starter. What fails on the other machine shows as an end of the process.

        What its machine went on running while it was lost is not started anew: a machine that is slow to answer serves.
        """
        if spec.host_name == LOCAL:
            return self._local.start(spec)
        self.listen()
        if spec.host_name in self._lost:
            raise HostLost(f"its host {spec.host_name} is lost: {self._lost[spec.host_name]}")
        tmp = self._tmp[spec.host_name]
        logs = tmp if self._ships else self._logs
        run = Run(
            id=f"{self._launch}-{next(self._numbers)}",
            name=spec.name,
            command=spec.command,
            env=spec.env,
            log=logs / spec.log.name,
            ships=spec.planned.checkpoint if self._ships and isinstance(spec, ServerSpec) and spec.planned else None,
            fresh=(spec.rendezvous,) if isinstance(spec, ServerSpec) else (),
            folders=(tmp,),
            preload=logs / f"preload-{spec.host_name}.log" if self._on_cpu else None,
        )
        self._forget_elsewhere(spec)
        before = self._handles.get((spec.host_name, spec.name))
        if before is not None and before.goes_on_as(run):
            return before
        handle = RayHandle(self, spec.host_name, run)
        self._handles[spec.host_name, spec.name] = handle
        handle.order_start()
        return handle

    def _forget_elsewhere(self, spec: Runnable) -> None:
        """What has moved is not to go on where it was."""
        for key, handle in list(self._handles.items()):
            if key[1] == spec.name and key[0] != spec.host_name and handle.is_known_lost:
                del self._handles[key]
                handle.order_end("kill")

    @property
    def sees(self) -> bool:
        """Whether there is a bridge that sees machines, as far as has been told."""
        return self._sees

    def send(self, order: Order) -> None:
        """Give an order to the bridge, if there is one now."""
        if self._bridge is not None:
            self._bridge.send(order)

    def connect(self) -> None:
        """Wait until something is known of each machine. Raises FleetError: Ray gives no answer."""
        self._new_bridge()
        if self._bridge is None:
            raise StartError(f"no bridge to Ray can be started (log: {self._log})")
        events = self._bridge.wait_for(_CONNECTED_S, "Ray")
        while not self._seen.issuperset(self._task.hosts):
            event = next(events)
            if event.view is not None:
                self._take(event.view)

    def listen(self) -> None:
        """Take in what the bridge has said, and replace it if it has ended; never waits."""
        if self._bridge is not None:
            ended = self._bridge.ended()
            for event in self._bridge.events():
                if event.view is not None:
                    self._take(event.view)
            for handle in self._handles.values():
                handle.end_unclaimed()
            if not ended:
                return
            self._bridge.close()
            self._bridge, self._sees = None, False
            self._replace_at = time.monotonic() + self._delay_s
            self._delay_s = min(2 * self._delay_s, _LONGEST_S)
        if time.monotonic() >= self._replace_at:
            self._new_bridge()

    def _new_bridge(self) -> None:
        try:
            self._bridge = self._connect(self._task, self._log)
        except OSError:  # no process or file to be had now
            self._replace_at = time.monotonic() + self._delay_s
            return
        for handle in self._handles.values():
            handle.order_again()

    def _take(self, view: HostView) -> None:
        self._seen.add(view.host)
        self._delay_s = _AGAIN_S
        if view.seen is None:
            self._lost[view.host] = view.why
        else:
            self._sees = True
            self._lost.pop(view.host, None)
        runs = {run.id: run for run in view.seen.runs} if view.seen else {}
        wanted = set()
        for (host, _), handle in self._handles.items():
            if host == view.host:
                handle.take(view.seen.agent if view.seen else None, runs.get(handle.run.id))
                wanted.add(handle.run.id)
        for run in runs.values():  # a machine is back that was lost: this has moved, or another was started for it
            if run.code is None and run.id not in wanted:
                self.send(Order(host=view.host, end=run.id, signal="kill"))

    def close(self) -> None:
        """End everything on all machines, and the agents there; what cannot be reached now, its lease ends."""
        with contextlib.suppress(FleetError, OSError):
            within_s = _CLOSED_S
            if self._bridge is None or self._bridge.ended():
                self._bridge = self._connect(self._task, self._log)
                within_s += _ENTERED_S
            self._bridge.send(Order(close=True))
            next(event for event in self._bridge.wait_for(within_s, "Ray") if event.closed)
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None


class RayHandle:
    """A process on another machine, as its agent last saw it."""

    pid = None

    def __init__(self, starter: RayStarter, host: str, run: Run) -> None:
        self._starter = starter
        self._host = host
        self.run = run
        self._agent: str | None = None
        """The one that was seen to have it."""
        self._seen: RunView | None = None
        self._is_lost = False
        self._found_at: float | None = None
        """When its machine, which was lost, was seen to run it still."""
        self._wanted_end: Literal["terminate", "kill"] | None = None

    @property
    def is_lost(self) -> bool:
        self._starter.listen()
        return self._is_lost

    @property
    def is_known_lost(self) -> bool:
        """Whether it is lost, as far as has been told."""
        return self._is_lost

    @property
    def awaits_files(self) -> bool:
        """See Handle. An agent knows of a run when its files are there; a bridge that sees nothing sends nothing."""
        self._starter.listen()
        return self.run.ships is not None and self._seen is None and not self._is_lost and self._starter.sees

    def poll(self) -> int | None:
        self._starter.listen()
        return self.poll_known()

    def terminate(self) -> None:
        self._end("terminate")

    def kill(self) -> None:
        self._end("kill")

    def tail(self, lines: int) -> list[str]:
        self._starter.listen()
        return list(self._seen.tail[-lines:]) if self._seen else []

    def memory(self) -> MemoryUse | None:
        return self._seen.memory if self._seen else None

    def take(self, agent: str | None, seen: RunView | None) -> None:
        """Note what an agent sees of it; no agent: its machine is lost."""
        ended = self._seen is not None and self._seen.code is not None
        if ended:
            return
        if self._is_lost:
            if seen is None or seen.code is not None:
                self._found_at = None
                return
            self._found_at = time.monotonic() if self._found_at is None else self._found_at
            self._agent, self._seen = agent, seen
        elif agent is None or (self._agent is not None and self._agent != agent):
            self._is_lost = True
        elif seen is not None:
            self._agent, self._seen = agent, seen

    def goes_on_as(self, run: Run) -> bool:
        """Take it up again, if it was lost, is found, and is what this run is to be. Returns whether it is."""
        if self._found_at is None or run != self.run.model_copy(update={"id": run.id}):
            return False
        self._is_lost, self._found_at = False, None
        return True

    def end_unclaimed(self) -> None:
        """End what a machine that is back went on running, if nobody wants it any more."""
        if self._found_at is not None and time.monotonic() - self._found_at > CLAIM_S:
            self._found_at = None
            self.order_end("kill")

    def order_start(self) -> None:
        self._starter.send(Order(host=self._host, start=self.run))

    def order_again(self) -> None:
        """Say again to a new bridge what may have been lost with the one before."""
        if self._is_lost or self.poll_known() is not None:
            return
        if self._seen is None:
            self.order_start()
        if self._wanted_end is not None:
            self.order_end(self._wanted_end)

    def poll_known(self) -> int | None:
        """Its exit code as far as it has been told."""
        return self._seen.code if self._seen else None

    def _end(self, how: Literal["terminate", "kill"]) -> None:
        if not self._is_lost and self.poll_known() is None:
            self._wanted_end = how
            self.order_end(how)

    def order_end(self, how: Literal["terminate", "kill"]) -> None:
        self._starter.send(Order(host=self._host, end=self.run.id, signal=how))
