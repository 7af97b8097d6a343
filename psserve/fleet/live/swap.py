"""One module's servers, or its adapter, come, give way to others, or go, while requests are served.

    bring: look whether hosts reach each other, materialise, start,
           wait for a real request through each                       (nothing has changed for clients yet)
    switch: the router's next request gets the new ones               (one step, see psserve/router/__main__.py)
    retire: the old ones finish what they have, then end

For an adapter, whose servers run already and go on: load it, switch, unload the old one after its last request.

What fails before the switch leaves the fleet as it was.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from os import getpid
from pathlib import Path

from psserve.contracts.router_config import ModuleConfig, RouterConfig
from psserve.engine.process import die_with_parent
from psserve.errors import FleetError, PsserveError, StartError
from psserve.fleet.live.adapters import AdapterServers
from psserve.fleet.live.control_socket import Tell
from psserve.fleet.live.waiting import until
from psserve.fleet.plan.spec import ModulePlan
from psserve.fleet.run.member import Limits, Member
from psserve.fleet.run.roster import Roster

Make = Callable[[ModulePlan], Awaitable[None]]
"""Puts on disk what a module's servers will load."""
_FOLLOW_S = 120.0
"""For the router to read a small file; it may be restarting, or have more to do than its machine can."""
_KILLED_S = 10.0
_UNTRIED = "no server of adapters answers now: it is loaded, and tried, when the first request for it comes"


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """A version of a module that is served no more after a change: its servers, or its adapter."""

    servers: Sequence[Member]
    adapter: str | None
    checkpoint: Path
    """Of the servers; deleted once they have gone."""


class Swap:
    """One change of what serves `module`.

    Servers or the adapter of `new` come, if it is given; then the router is told that the module is `listed`, or no
    more; then what is `leaving` goes.
    """

    def __init__(
        self,
        roster: Roster,
        adapters: AdapterServers,
        limits: Limits,
        tell: Tell,
        *,
        module: str,
        listed: ModuleConfig | None,
        new: ModulePlan | None = None,
        leaving: Leaving | None = None,
    ) -> None:
        self._roster, self._adapters, self._limits = roster, adapters, limits
        self._tell = tell
        self._module, self._listed, self._new, self._leaving = module, listed, new, leaving

    async def run(self, make: Make) -> None:
        """Do it. `make` makes the new checkpoint, or puts the new adapter where servers find it.

        Raises FleetError, ZooError or OSError; then what served before serves on.
        """
        before = self._roster.config
        try:
            if self._new is not None:
                await self._bring(self._new, make)
            await self._switch()
        except (PsserveError, OSError):
            await self._undo(before)
            raise
        self._roster.switch(self._leaving.servers if self._leaving else ())
        if self._leaving is None:
            return
        if self._leaving.adapter is not None:
            self._adapters.leave(self._leaving.adapter)
        if self._leaving.servers:
            await self._retire(self._leaving)

    # --- bring

    async def _bring(self, new: ModulePlan, make: Make) -> None:
        if new.servers:
            await self._roster.require_reachable(new.servers)
        await make(new)
        if new.servers:
            await self._start(new)
        if new.adapter is not None:
            loaded = await self._adapters.load(new.adapter.name)
            self._tell(f"{new.adapter.name}: {'loaded' if loaded else _UNTRIED}")

    async def _start(self, new: ModulePlan) -> None:
        members = self._roster.bring(new.servers)
        self._tell(f"{_names(members)}: starting")
        self._roster.tell(workers=[*self._roster.config.workers, *new.workers])
        await until(lambda: self._have_files(members), math.inf)
        await until(lambda: self._are_ready(members), self._limits.start_timeout_s)
        dead = [member for member in members if not member.alive]
        if dead:
            self._tell("\n".join(dead[0].last_words()))
            raise StartError(dead[0].failure)
        late = next((member for member in members if member.state != "ready"), None)
        if late is not None and (overdue := self._roster.overdue):
            raise StartError(
                f"given up for {_names(overdue)}, whose host stays lost, to start on another one first;"
                f" then ask again. Not ready so far: {late.failure}"
            )
        if late is not None:
            raise StartError(f"not ready after {self._limits.start_timeout_s:g} s: {late.failure}")
        self._tell(f"{_names(members)}: ready after {members[0].seconds:.1f} s")

    def _have_files(self, members: Sequence[Member]) -> bool:
        """Whether all have what is sent to their hosts, or there is nothing to wait for."""
        return self._waits_in_vain(members) or not any(member.awaits_files for member in members)

    def _are_ready(self, members: Sequence[Member]) -> bool:
        """Whether all are, or there is nothing to wait for."""
        return self._waits_in_vain(members) or all(member.state == "ready" for member in members)

    def _waits_in_vain(self, members: Sequence[Member]) -> bool:
        """Whether one has ended, or others are to move off a lost host first.

        These may be what the new ones lack; and their requests wait for no change that takes minutes.
        """
        return any([member.ended() for member in members]) or bool(self._roster.overdue)

    # --- switch

    async def _switch(self) -> None:
        modules = {entry.name: entry for entry in self._roster.config.modules}
        if self._listed is not None:
            modules[self._module] = self._listed  # in its place, if it had one
        else:
            modules.pop(self._module, None)
        self._roster.tell(modules=modules.values())
        await self._followed()

    async def _followed(self) -> None:
        roster = self._roster
        if not await until(lambda: roster.is_followed, _FOLLOW_S):
            raise FleetError(f"the router does not take over its new configuration (log: {roster.router.spec.log})")

    async def _undo(self, before: RouterConfig) -> None:
        """Back to what the router was told before; whoever came is killed."""
        told = self._roster.config is not before
        if told:
            try:
                self._roster.tell(modules=before.modules, workers=before.workers)
            except OSError as error:  # the new servers end all the same: the router will find them down
                self._tell(f"warning: the router's configuration cannot be written: {error}")
            await until(lambda: self._roster.is_followed, _FOLLOW_S)  # it may send requests to those who came
        came, self._roster.coming = self._roster.coming, []
        await self._end(came, grace_s=0.0)
        if self._new is None:
            return
        if self._new.adapter is not None and told:  # requests may have it
            self._adapters.leave(self._new.adapter.name)
        elif self._new.adapter is not None:
            await self._adapters.discard(self._new.adapter.name)
        if self._new.checkpoint is not None:
            await asyncio.to_thread(shutil.rmtree, self._new.checkpoint.path, ignore_errors=True)

    # --- retire

    async def _retire(self, leaving: Leaving) -> None:
        old = leaving.servers
        if not await until(lambda: all(self._is_drained(member) for member in old), self._limits.drain_s):
            self._tell(f"{_names(old)}: requests still run after {self._limits.drain_s:g} s and are ended")
        names = {member.spec.name for member in old}
        try:
            self._roster.tell(workers=[one for one in self._roster.config.workers if one.name not in names])
            await self._followed()
        except (FleetError, OSError) as error:  # the new servers serve, and the old ones end all the same
            self._tell(f"warning: {error}")
        await self._end(old, self._limits.grace_s)
        self._roster.going = []
        self._tell(f"{_names(old)}: ended")
        await asyncio.to_thread(shutil.rmtree, leaving.checkpoint, ignore_errors=True)

    def _is_drained(self, member: Member) -> bool:
        if not member.alive or member.ended():
            return True
        view = self._roster.views.get(member.spec.name)
        return view is not None and view.running == view.held == 0

    async def _end(self, members: Sequence[Member], grace_s: float) -> None:
        for member in members:
            member.terminate()
        if not await until(lambda: all(map(_is_over, members)), grace_s):
            for member in members:
                member.kill()
            await until(lambda: all(map(_is_over, members)), _KILLED_S)


def _is_over(member: Member) -> bool:
    return not member.alive or member.ended()


def _names(members: Sequence[Member]) -> str:
    return ", ".join(member.spec.name for member in members)


async def run_command(command: Sequence[str], what: str) -> None:
    """Run a command to its end; it is killed if the work is given up. FleetError has its last line on stderr."""
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=partial(die_with_parent, getpid()),  # forked by the main thread, see run/process.py
    )
    try:
        _, said = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        lines = said.decode(errors="replace").split("\n")
        reason = next((line for line in reversed(lines) if line.strip()), f"exit status {child.returncode}")
        raise FleetError(f"{what}: {reason.strip()}")
