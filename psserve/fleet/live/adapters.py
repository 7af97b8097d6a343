"""Adapters come to the servers that share them, and go, while these serve."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from http.client import HTTPException

from psserve.errors import FleetError, NoAnswer
from psserve.fleet.live.waiting import until
from psserve.fleet.plan import layout
from psserve.fleet.plan.spec import ServerSpec
from psserve.fleet.run.adapters import unlink_adapter
from psserve.fleet.run.roster import Roster
from psserve.fleet.run.router_client import HttpClient

_LOAD_S = 60.0
"""For reading and loading one adapter; the server may have much to compute."""
_UNLOAD_S = 10.0


class AdapterServers:
    """The decode servers of a fleet that serve adapters, and the folder from which they load them."""

    def __init__(self, roster: Roster, note: Callable[[str], None]) -> None:
        self._roster, self._note = roster, note
        self._run = roster.plan.run_dir
        self._leaving: set[asyncio.Task[None]] = set()

    async def load(self, name: str) -> bool:
        """Load an adapter of the folder on every server that is ready; others load it when they are asked for it.

        Returns whether one has it now. Raises FleetError: a server refuses it.
        """
        path = str(layout.adapters_dir(self._run) / name)
        return await self._tell_all("/load_lora_adapter", {"lora_name": name, "lora_path": path}, _LOAD_S) > 0

    async def discard(self, name: str) -> None:
        """Take an adapter away that no request has, or will get."""
        unlink_adapter(self._run, name)
        try:
            await self._tell_all("/unload_lora_adapter", {"lora_name": name}, _UNLOAD_S)
        except FleetError as error:  # it is no server's any more, or goes when its place is needed
            self._note(f"{name}: {error}")

    def leave(self, name: str) -> None:
        """Take an adapter away when the last request that it still has is over. New ones do not get it."""
        task = asyncio.create_task(self._leave(name))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Wait for no request any more."""
        for task in self._leaving:
            task.cancel()
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def _leave(self, name: str) -> None:
        await until(lambda: self._roster.is_followed and name not in self._roster.held_adapters, math.inf)
        await self.discard(name)
        self._note(f"{name}: unloaded")

    async def _tell_all(self, path: str, body: Mapping[str, str], timeout_s: float) -> int:
        """Tell every server that is ready. Returns how many did it: one that ends meanwhile is no longer asked."""
        members = (*self._roster.servers, *self._roster.coming)
        key = self._roster.plan.worker_key
        specs = [member.spec for member in members if member.state == "ready"]
        telling = [
            asyncio.to_thread(_tell, spec, key, path, body, timeout_s)
            for spec in specs
            if isinstance(spec, ServerSpec) and spec.adapters is not None
        ]
        outcomes = await asyncio.gather(*telling, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, NoAnswer):
                self._note(str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
        return sum(outcome is None for outcome in outcomes)


def _tell(server: ServerSpec, key: str, path: str, body: Mapping[str, str], timeout_s: float) -> None:
    try:
        with HttpClient(server.url, key).post(path, body, timeout_s) as answer:
            answer.read()
    except (NoAnswer, OSError, HTTPException) as error:  # the last two: it ended amid its answer
        raise NoAnswer(f"{server.name}: {error}") from error
    except FleetError as error:
        raise FleetError(f"{server.name}: {error}") from error
