"""Killing and freezing the processes of a fleet, one at a time, each time waiting until the fleet is whole again."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import psutil

from psserve.bench.systems.fleet import RunningFleet
from psserve.errors import FleetError
from psserve.fleet.run.router_client import RouterClient

WHOLE_WITHIN_S = 180.0
FREEZES = ("freeze decode", "freeze prefill")
KINDS = ("kill decode", "kill prefill", "kill scheduler", *FREEZES)


class NotWhole(Exception):
    """A fleet did not recover in time."""


class Killer:
    """Does one thing after the other to a fleet. `done` counts them."""

    def __init__(self, fleet: RunningFleet, rng: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self.slowest_recovery_s = 0.0
        self._fleet = fleet
        self._rng = rng
        self._order: list[str] = []

    async def strike(self, kinds: Sequence[str] = KINDS) -> None:
        """One of these things, in random order but all equally often. Raises NotWhole."""
        if not (left := [kind for kind in self._order if kind in kinds]):
            left = self._order = self._rng.sample(kinds, len(kinds))
        kind = left[-1]
        self._order.remove(kind)
        action, _, target = kind.partition(" ")
        started = time.monotonic()
        if action == "freeze":
            await self._freeze(self._scheduler(target))
        elif target == "scheduler":
            self._scheduler(self._rng.choice(("decode", "prefill"))).kill()
        else:
            psutil.Process(self._fleet.pids()[self._name(target)]).send_signal(signal.SIGKILL)
        self.done[kind] += 1
        await asyncio.sleep(1.0)  # until it is noticed
        await self.whole()
        self.slowest_recovery_s = max(self.slowest_recovery_s, time.monotonic() - started)

    async def whole(self) -> None:
        """Wait until every server serves, by the supervisor's word and the router's. Raises NotWhole."""
        deadline = time.monotonic() + WHOLE_WITHIN_S
        while not await asyncio.to_thread(self._is_whole):
            if time.monotonic() > deadline:
                raise NotWhole(f"not whole {WHOLE_WITHIN_S:g} s after {self.done}")
            await asyncio.sleep(0.5)

    def _is_whole(self) -> bool:
        state = json.loads((self._fleet.zoo / ".run" / "state.json").read_text())
        try:
            workers = RouterClient(self._fleet.url).workers()
        except FleetError:
            return False
        states = [server["state"] for server in state["servers"]] + [worker.state for worker in workers.values()]
        return all(state == "ready" for state in states)

    async def _freeze(self, process: psutil.Process) -> None:
        process.suspend()
        try:
            await asyncio.sleep(self._rng.uniform(2.0, 8.0))
        finally:
            process.resume()

    def _name(self, role: str) -> str:
        return self._rng.choice(sorted(name for name in self._fleet.pids() if name.startswith(role)))

    def _scheduler(self, role: str) -> psutil.Process:
        server = psutil.Process(self._fleet.pids()[self._name(role)])
        return next(child for child in server.children(recursive=True) if "sglang::scheduler" in _command(child))


def _command(process: psutil.Process) -> str:
    line: Iterable[str] = process.cmdline()
    return " ".join(line)
