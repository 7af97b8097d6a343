"""The processes of a router that has several on its port: each tells the others, over a Unix socket, what it has done.

A client reaches one of them, whichever the kernel chose for its connection; what it is told is to be of all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from psserve.contracts.router_config import RouterConfig
from psserve.errors import RequestError

Tell = Callable[[], Awaitable[bytes]]
"""What one process has to say."""
ANSWER_S = 5.0
STATES = ("ready", "starting", "down")
"""From the best to the worst."""
BREAKERS = ("closed", "half-open", "open")


@dataclass(frozen=True)
class Seat:
    """Which of a router's processes this is, and where they all meet."""

    number: int
    port: int
    folder: Path

    def socket(self, number: int) -> str:
        """Where the process of this number answers the others."""
        return str(self.folder / f"{number}.sock")


class Siblings:
    """The other processes of a router. By default there are none."""

    def __init__(self, seat: Seat | None = None, count: int = 1) -> None:
        self._seat = seat
        self._others = [number for number in range(count) if seat is not None and number != seat.number]
        self._runner: web.AppRunner | None = None

    @property
    def number(self) -> int:
        """Of this process; the first one is 0."""
        return 0 if self._seat is None else self._seat.number

    async def open(self, told: Mapping[str, Tell]) -> None:
        """Answer the others' questions, by path, until `close`."""
        if self._seat is None:
            return
        app = web.Application()
        for path, tell in told.items():
            app.router.add_get(path, _handler(tell))
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.UnixSite(self._runner, self._seat.socket(self._seat.number)).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def ask(self, path: str) -> dict[int, bytes]:
        """What every other process says, by its number. Raises RequestError (503) while one does not answer."""
        answers = await asyncio.gather(*(self.ask_one(number, path) for number in self._others))
        return dict(zip(self._others, answers, strict=True))

    async def ask_one(self, number: int, path: str) -> bytes:
        """What the process of this number, which is not this one, says. Raises RequestError (503)."""
        assert self._seat is not None
        connector = aiohttp.UnixConnector(self._seat.socket(number))
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
                http.get(f"http://localhost{path}", raise_for_status=True) as answer,
            ):
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            message = "another process of this router does not answer; retry in a moment"
            raise RequestError(503, message, type="server_error", code="server_is_overloaded") from error


SIBLINGS = web.AppKey("siblings", Siblings)


def _handler(tell: Tell) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=await tell())

    return handle


def merged_views(views: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One answer of `/workers` for those of all processes: what is true of each of them, and sums of requests.

    A worker that one of them does not know yet is starting; the serial is one that all follow.
    """
    entries: dict[str, list[dict[str, Any]]] = {}
    for view in views:
        for worker in view["workers"]:
            entries.setdefault(worker["name"], []).append(worker)
    adapters: Counter[str] = Counter()
    for view in views:
        adapters.update(view["adapters"])
    workers = [_merged_worker(of_one, everywhere=len(of_one) == len(views)) for of_one in entries.values()]
    return {"workers": workers, "adapters": dict(adapters), "serial": min(view["serial"] for view in views)}


def _merged_worker(entries: Sequence[dict[str, Any]], *, everywhere: bool) -> dict[str, Any]:
    states = [entry["state"] for entry in entries] + ([] if everywhere else ["starting"])
    return entries[0] | {
        "state": max(states, key=STATES.index),
        "breaker": max((entry["breaker"] for entry in entries), key=BREAKERS.index),
        "error": next((entry["error"] for entry in entries if entry["error"]), None),
        **{name: sum(entry[name] for entry in entries) for name in ("running", "held")},
    }


def divided(config: RouterConfig) -> RouterConfig:
    """The configuration of one process of a router: its part of what all routers may take together, rounded up."""
    count = config.processes
    if count == 1:
        return config

    def part(limit: int | None, least: int = 1) -> int | None:
        return None if limit is None else max(least, -(-limit // count))

    queue, limits = config.queue, config.limits
    return config.model_copy(
        update={
            "limits": limits.model_copy(update={"connections": part(limits.connections)}),
            "queue": queue.model_copy(
                update={
                    "module_requests": part(queue.module_requests),
                    "prefill_requests": part(queue.prefill_requests),
                    "window_requests": part(queue.window_requests, 2),
                    "window_tokens": part(queue.window_tokens),
                }
            ),
            "keys": config.keys and _parts(config.keys, part, KEY_LIMITS),
            "workers": _parts(
                (
                    worker.model_copy(update={"kv_tokens": worker.kv_tokens or config.kv_pool_tokens})
                    for worker in config.workers
                ),
                part,
                ("kv_tokens", "max_running_requests"),
            ),
        }
    )


KEY_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


def _parts(entries: Iterable[Any], part: Callable[[int | None], int | None], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(entry.model_copy(update={name: part(getattr(entry, name)) for name in names}) for entry in entries)
