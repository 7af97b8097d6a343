"""The processes of a running fleet as they are now, and what its router is told of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from pydantic import ValidationError

from psserve.contracts.api_keys import ApiKey
from psserve.contracts.router_config import ModuleConfig, RouterConfig, WorkerConfig
from psserve.contracts.servers import WorkerView
from psserve.errors import FleetError, StartError
from psserve.fleet.plan.measured import note_measured
from psserve.fleet.plan.router_config import worker_config
from psserve.fleet.plan.spec import FleetPlan, ServerSpec
from psserve.fleet.run.member import Member, RestartPolicy
from psserve.fleet.run.memory import family, gpu_memory, of_family
from psserve.fleet.run.prepare import set_aside, write_router_config
from psserve.fleet.run.process import Starter
from psserve.fleet.run.reachability import require_reachable
from psserve.fleet.run.router_client import RouterClient


class Roster:
    """Router and servers. A live change adds servers to `coming`, and moves those that leave to `going`.

    Whatever is in `servers` is started again when it dies; what comes or goes is the live change's own affair.
    """

    def __init__(
        self, plan: FleetPlan, starter: Starter, policy: RestartPolicy, note: Callable[[str], None] = lambda text: None
    ) -> None:
        self._plan = plan
        self._starter, self._policy, self._note = starter, policy, note
        self.config = plan.router.config
        """What the router was told last."""
        self.router = Member(plan.router, starter, policy)
        self.servers = [Member(spec, starter, policy) for spec in plan.servers]
        self.coming: list[Member] = []
        self.going: list[Member] = []
        self.views: Mapping[str, WorkerView] = {}
        """What the router said last, by server."""
        self.held_adapters: Mapping[str, int] = {}
        """Adapter -> requests in flight that may need it, as the router said last."""
        self._client = RouterClient(plan.router.url, plan.operator_key, plan.router.certificate)
        self._followed = 0
        self._next_poll = 0.0

    @property
    def members(self) -> list[Member]:
        return [*self.servers, *self.coming, *self.going, self.router]

    @property
    def plan(self) -> FleetPlan:
        """The plan of what runs now, on the hosts that are there now. For the main thread alone."""
        specs = (member.spec for member in (*self.servers, *self.coming, *self.going))
        hosts, lost = self._plan.basis.hosts, self.lost_hosts
        there = tuple(host for host in hosts if host.name not in lost) or hosts
        return replace(
            self._plan,
            basis=replace(self._plan.basis, hosts=there),
            servers=tuple(spec for spec in specs if isinstance(spec, ServerSpec)),
            router=replace(self._plan.router, config=self.config),
        )

    @property
    def lost_hosts(self) -> frozenset[str]:
        """Those that cannot be reached, and those for which servers wait still. For the main thread alone."""
        waited_for = (member.spec.host_name for member in self.servers if member.state == "lost")
        return self._starter.lost_hosts.union(waited_for)

    @property
    def overdue(self) -> list[Member]:
        """Servers that are to be moved off a lost host, which nobody has tried yet."""
        return [member for member in self.servers if member.is_overdue]

    def servers_of(self, module: str, version: int) -> list[Member]:
        """The servers that serve this version of a module, or are to serve it again once they are restarted."""
        wanted = (module, version)
        names = {worker.name for worker in self.config.workers if (worker.module, worker.version) == wanted}
        return [member for member in self.servers if member.spec.name in names]

    # --- processes

    def start(self) -> None:
        """Start everything. Raises StartError."""
        for member in self.members:
            member.start(self._plan.worker_key)

    async def require_reachable(self, coming: Sequence[ServerSpec]) -> None:
        """See that servers which are to come and those that they will work with reach each other.

        Raises StartError: they do not; PlanError: no port is free to try it at.
        """
        await require_reachable(self.plan, self._starter, coming=coming)

    def bring(self, specs: Sequence[ServerSpec]) -> list[Member]:
        """Start servers beside those there are. Raises StartError; those that were started are in `coming`."""
        for spec in specs:
            set_aside(spec.log)
            member = Member(spec, self._starter, self._policy)
            self.coming.append(member)
            member.start(self._plan.worker_key)
        return list(self.coming)

    def switch(self, old: Sequence[Member]) -> None:
        """Make those that came the fleet's own, and let the `old` ones leave it."""
        self.servers = [member for member in self.servers if member not in old] + self.coming
        self.coming, self.going = [], list(old)
        for member in old:
            member.state = "draining"

    def revive(self) -> None:
        """Restart what died and is due; give up what dies too often. FleetError when that is the router."""
        for member in (*self.servers, self.router):
            self._revive(member)

    def move(self, member: Member, spec: ServerSpec) -> None:
        """Have a server that does not run started as this `spec`, of the same name. FleetError, OSError: as `tell`."""
        told = [worker_config(spec, one.version) if one.name == spec.name else one for one in self.config.workers]
        self.tell(workers=told)
        member.move(spec)

    def end_stuck(self) -> None:
        """End servers that live and serve nobody although servers of the other role do: `revive` starts them anew.

        A scheduler may hang, or a thread of its KV hand-over end, in a process that goes on.
        """
        serving = {member.spec.role for member in self.servers if member.state == "ready"}
        for member in self.servers:
            if member.is_stuck("prefill" in serving if member.spec.role == "decode" else "decode" in serving):
                self._note(f"{member.spec.name}: {member.error or 'not ready'}, for too long: it is ended")
                member.kill()

    def _revive(self, member: Member) -> None:
        before = member.state
        if member.restart_due():
            try:
                member.start(self._plan.worker_key)
                return
            except StartError as error:
                member.error = str(error)
        elif not member.ended():
            return
        delay = member.plan_restart()
        if before == member.state == "lost":  # said already
            return
        what = "given up after too many ends" if delay is None else f"restart in {delay:g} s"
        self._note(f"{member.spec.name}: {member.error}; {what} (log: {member.spec.log})")
        if delay is None and member is self.router:
            raise FleetError(f"the router: {member.error}, too often to go on (log: {member.spec.log})")

    def note_gpu_memory(self) -> None:
        """Keep what servers take on GPUs for later plans of the zoo. Waits for nvidia-smi. Raises OSError."""
        specs = {member: member.spec for member in self.servers if isinstance(member.spec, ServerSpec)}
        on_gpus = {member: spec for member, spec in specs.items() if spec.gpus}
        by_pid = gpu_memory() if on_gpus else {}
        found: dict[str, int] = {}
        for member, spec in on_gpus.items():
            if spec.role == "decode" and self._plan.basis.settings.one_pool:
                continue  # what is counted of memory that it only maps is not known
            pid = member.record().pid
            taken = None if pid is None else of_family(family(pid), by_pid)
            if taken is not None:
                beside = (taken - spec.memory.weight_bytes - spec.memory.kv_bytes) // len(spec.gpus)
                found[spec.memory.kind] = max(beside, found.get(spec.memory.kind, 0))
        note_measured(self._plan.run_dir, found)

    # --- the router

    @property
    def is_followed(self) -> bool:
        """Whether the router serves what it was told last."""
        return bool(self._followed == self.config.serial)

    def tell(
        self,
        *,
        modules: Iterable[ModuleConfig] | None = None,
        workers: Iterable[WorkerConfig] | None = None,
        keys: Iterable[ApiKey] | None = None,
    ) -> None:
        """Write the router's configuration anew with these; it follows soon, see `is_followed`.

        A router that is restarted meanwhile reads the same file.

        Raises:
            FleetError: these do not fit together; nothing has changed.
            OSError: the file cannot be written; nothing has changed.
        """
        told = {"modules": modules, "workers": workers, "keys": keys}
        new = {name: tuple(entries) for name, entries in told.items() if entries is not None}
        try:
            config = RouterConfig.model_validate({**vars(self.config), **new, "serial": self.config.serial + 1})
        except ValidationError as error:
            raise FleetError(f"the router cannot serve this: {error.errors(include_url=False)[0]['msg']}") from error
        write_router_config(self._plan, config)
        self.config = config
        self._next_poll = 0.0

    def note_ready(self) -> None:
        """Write into the router's file that the fleet was ready once: for a router that is started anew, not for this.

        Raises OSError: the file cannot be written; nothing has changed.
        """
        config = self.config.model_copy(update={"was_ready": True})
        write_router_config(self._plan, config)
        self.config = config

    async def observe(self, every_s: float) -> None:
        """Learn from the router which servers answer real requests, and have it read its file if it has not yet."""
        now = time.monotonic()
        if now < self._next_poll or not self.router.alive:
            return
        self._next_poll = now + every_s
        try:
            view = await asyncio.to_thread(self._client.view)
        except FleetError as error:
            await self.router.observe("down", str(error))
            return
        await self.router.observe("ready", None)
        self._followed, self.views, self.held_adapters = view.serial, view.by_name, view.adapters
        if not self.is_followed:
            self.router.hang_up()  # it has just answered: its handler is in place
        unknown = WorkerView(name="", state="starting", error="the router does not know it")
        for member in (*self.servers, *self.coming):
            seen = self.views.get(member.spec.name, unknown)
            await member.observe(seen.state, seen.error)
