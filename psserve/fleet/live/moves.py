"""Servers whose host stays lost are started on another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from psserve.errors import PsserveError
from psserve.fleet.live.supply import Supply
from psserve.fleet.plan.spec import ServerSpec
from psserve.fleet.run.member import Member
from psserve.fleet.run.roster import Roster


class Moves:
    """Looks after the servers of one fleet that are lost."""

    def __init__(self, roster: Roster, supply: Supply, note: Callable[[str], None]) -> None:
        self._roster, self._supply, self._note = roster, supply, note

    def due(self) -> list[Member]:
        """The servers that have waited long enough for their host. Each is told once, and again as long after."""
        return [member for member in self._roster.servers if member.wants_elsewhere()]

    async def move(self, members: Sequence[Member]) -> None:
        """Plan each anew, to be started elsewhere. Not while others come or go; may take half a minute."""
        reached: set[str] = set()
        for member in members:
            await self._move(member, reached)

    async def _move(self, member: Member, reached: set[str]) -> None:
        """`reached`: hosts that were seen to reach the others, to which one is added."""
        spec = member.spec
        assert isinstance(spec, ServerSpec), "the router is on no host that can be lost"
        try:
            found = await asyncio.to_thread(self._supply.elsewhere, self._roster.plan, spec, self._roster.lost_hosts)
            if found.host_name not in reached:
                await self._roster.require_reachable([found])
                reached.add(found.host_name)
            if member.state != "lost":  # its host has come back meanwhile
                return
            self._roster.move(member, found)
            self._note(f"{spec.name}: {spec.host_name} stays lost; it starts on {found.host_name}")
        except (PsserveError, OSError) as error:
            self._note(f"{spec.name}: {spec.host_name} stays lost, and no other host can run it: {error}")
