"""Servers whose host stays lost are started on another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from psserve.errors import PsserveError
from psserve.fleet.live.supply import Supply
from psserve.fleet.plan.spec import ServerSpec
from psserve.fleet.run.member import Member
from psserve.fleet.run.roster import Roster


class Moves:
    """Looks after the servers of one fleet that are lost."""

    def __init__(self, roster: Roster, supply: Supply, note: Callable[[str], None]) -> None:
        self._roster, self._supply, self._note = roster, supply, note

    async def look(self) -> None:
        """Plan each server anew that has waited long enough for its host. Not to be awaited during a live change."""
        for member in self._roster.servers:
            if member.wants_elsewhere():
                await self._move(member)

    async def _move(self, member: Member) -> None:
        spec, plan = member.spec, self._roster.plan
        assert isinstance(spec, ServerSpec), "the router is on no host that can be lost"
        try:
            found = await asyncio.to_thread(self._supply.elsewhere, plan, spec, self._roster.lost_hosts)
            self._roster.move(member, found)
            self._note(f"{spec.name}: {spec.host_name} stays lost; it starts on {found.host_name}")
        except (PsserveError, OSError) as error:
            self._note(f"{spec.name}: {spec.host_name} stays lost, and no other host can run it: {error}")
