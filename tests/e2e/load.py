"""Requests of many clients, each of which asks again once it has its answer, and what became of each request."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Self

from tests.e2e.client import Client

MAX_TOKENS = 8


@dataclass(frozen=True)
class Outcome:
    """One request. Times are monotonic seconds."""

    module: str
    prompt: int
    """Its number in the load's prompts."""
    started: float
    ended: float
    status: int
    code: str | None
    """Of an error."""
    answers: tuple[tuple[int, ...], ...]
    """Token ids of each choice."""


@dataclass
class Load:
    """Clients that ask modules for greedy answers to the same prompts until they are told to stop.

    Between two requests a client thinks for `think_s` on the average, until `hurry`: from then on as many requests are
    in flight as there are clients.
    """

    client: Client
    prompts: Sequence[list[int]]
    think_s: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    _stopped: set[str] = field(default_factory=set)
    _hurries: asyncio.Event = field(default_factory=asyncio.Event)
    _rng: random.Random = field(default_factory=lambda: random.Random(0))
    _clients: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, modules: Iterable[str], clients: int) -> None:
        """So many more clients, dealt to the modules in turn. Every fifth one asks for two answers at a time."""
        names = list(modules)
        for i in range(clients):
            asking = self._ask(names[i % len(names)], i, 2 if i % 5 == 0 else 1)
            self._clients.append(asyncio.create_task(asking))

    def hurry(self) -> None:
        """Let nobody think from now on."""
        self._hurries.set()

    def stop(self, *modules: str) -> None:
        """Let the clients of these modules end after their present request, or thought."""
        self._stopped.update(modules)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Wait for clients that were stopped; break off all when something went wrong."""
        if error[0] is not None:
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
        else:
            await asyncio.gather(*self._clients)

    def of(self, *modules: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.module in modules]

    def median_s(self, module: str, start: float, end: float) -> float | None:
        """The median time of the module's requests that began and ended in between; None if there are none."""
        took = [one.ended - one.started for one in self.of(module) if start <= one.started and one.ended <= end]
        return median(took) if took else None

    async def _ask(self, module: str, number: int, choices: int) -> None:
        while module not in self._stopped:
            prompt = number % len(self.prompts)
            number += 1
            started = time.monotonic()
            fields = {"prompt": self.prompts[prompt], "max_tokens": MAX_TOKENS, "temperature": 0, "n": choices}
            status, answer = await self.client.post(
                "/v1/completions", {"model": module, "return_token_ids": True, **fields}
            )
            self.outcomes.append(
                Outcome(
                    module,
                    prompt,
                    started,
                    time.monotonic(),
                    status,
                    answer.get("error", {}).get("code"),
                    tuple(tuple(choice["token_ids"]) for choice in answer.get("choices", ())),
                )
            )
            if self.think_s and not self._hurries.is_set():
                await self._think()

    async def _think(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurries.wait(), self._rng.uniform(0, 2 * self.think_s))
