"""A run: check the servers, measure texts, warm up, then send all sessions in an open or a closed loop."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain, islice
from typing import Any

import aiohttp

from psserve.bench.load.context import ChatContext, ChatSizes, Context, IdsContext, measure_chat_sizes
from psserve.bench.load.endpoints import Sender, check_endpoints, open_http
from psserve.bench.load.options import LoadOptions, LoadProgress
from psserve.bench.load.session_run import SessionRun, sleep_until
from psserve.bench.load.texts import TokenizedTexts
from psserve.bench.record import RequestRecord
from psserve.bench.session import Session
from psserve.errors import BenchError, UsageError


async def run_load(
    sessions: Iterable[Session],
    endpoints: Mapping[str, str],
    options: LoadOptions,
    progress: LoadProgress | None = None,
    stop: asyncio.Event | None = None,
    on_warm: Callable[[], None] | None = None,
) -> list[RequestRecord]:
    """Run sessions, and return what became of every request, in the order of their ends.

    `endpoints`: module -> URL of a server, with or without /v1; the module's name is the request's `model`. `sessions`
    may be endless where there is a duration; in an open loop they must come in the order of their starts. Setting
    `stop` ends the run at once: requests under way are recorded as interrupted. `on_warm` is called between the warm-up
    and what counts, when nothing is under way. Times count from this call.

    Raises:
        UsageError: options that do not fit the sessions.
        BenchError: a server that cannot be reached, refuses or does not serve a module.
    """
    start = time.perf_counter()
    tokenizer = None if options.tokenizer is None else TokenizedTexts(options.tokenizer)
    _allow_connections()
    count = len(sessions) if isinstance(sessions, Sized) else None
    first, in_turn = _peek(sessions)
    if options.concurrency is None and first.start_s is None:
        raise UsageError(f"session {first.id} has no start: an open loop needs an arrival rate")
    records: list[RequestRecord] = []
    async with open_http(options) as http:

        async def work() -> None:
            sizes = await _prepare(http, first, endpoints, options, tokenizer)
            if progress is not None:
                progress.begin(count)
            sender = Sender(http, endpoints, options)
            run = _Run(sender, options, progress, tokenizer, sizes, records, start)
            await run.warm_up(list(islice(in_turn, options.warmup)))
            if on_warm is not None:
                on_warm()
            await run.counted(in_turn)

        await _until(stop, work())
    return records


async def _until(stop: asyncio.Event | None, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, or as much of it as there is time for until `stop` is set."""
    if stop is None:
        await work
        return
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if not task.done():
            task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _prepare(
    http: aiohttp.ClientSession,
    first: Session,
    endpoints: Mapping[str, str],
    options: LoadOptions,
    tokenizer: TokenizedTexts | None,
) -> ChatSizes | None:
    """Check what can be checked before; None where lengths need no measuring."""
    await check_endpoints(http, endpoints, endpoints)
    if options.api == "completions":
        return None
    return await measure_chat_sizes(
        Sender(http, endpoints, options), first.steps[0].calls[0].module, tokenizer, options.salt
    )


class _Run:
    """The state of one run."""

    def __init__(
        self,
        sender: Sender,
        options: LoadOptions,
        progress: LoadProgress | None,
        tokenizer: TokenizedTexts | None,
        sizes: ChatSizes | None,
        records: list[RequestRecord],
        start: float,
    ) -> None:
        self._records = records
        self._sender, self._options, self._progress = sender, options, progress
        self._tokenizer, self._sizes = tokenizer, sizes
        self._start = start
        self._shift = 0.0
        """What is taken off the starts of an open loop's sessions: the start of the last one that was warm-up."""

    async def warm_up(self, sessions: Sequence[Session]) -> None:
        """Sessions that do not count, to their end."""
        at_once = self._options.concurrency or max(1, len(sessions))
        await self._closed(iter(sessions), at_once, None, warmup=True)
        self._shift = max((session.start_s or 0.0 for session in sessions), default=0.0)

    async def counted(self, sessions: Iterator[Session]) -> None:
        """All others."""
        now = time.perf_counter()
        end = None if self._options.duration_s is None else now + self._options.duration_s
        if self._options.concurrency is not None:
            await self._closed(sessions, self._options.concurrency, end)
        else:
            await self._open(sessions, now - self._shift, end)

    async def _closed(self, sessions: Iterator[Session], at_once: int, end: float | None, warmup: bool = False) -> None:
        async def work() -> None:
            for session in sessions:
                if end is not None and time.perf_counter() >= end:
                    return
                await self._session(session, warmup=warmup)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())

    async def _open(self, sessions: Iterator[Session], zero: float, end: float | None) -> None:
        limit = self._options.limit
        places = None if limit is None else asyncio.Semaphore(limit)
        async with asyncio.TaskGroup() as group:
            for session in sessions:
                due = zero + (session.start_s or 0.0)
                if end is not None and due >= end:
                    return
                await sleep_until(due)
                run = self._session(session, due) if places is None else self._limited(session, due, places)
                group.create_task(run)

    async def _limited(self, session: Session, arrived: float, places: asyncio.Semaphore) -> None:
        """First come, first served."""
        async with places:
            await self._session(session, arrived=arrived)

    async def _session(
        self, session: Session, due: float | None = None, arrived: float | None = None, warmup: bool = False
    ) -> None:
        run = SessionRun(
            session,
            self._context(session),
            self._sender,
            self._ended,
            salt=self._options.salt,
            start=self._start,
            arrived=arrived,
            warmup=warmup,
        )
        await run.run(due)
        if self._progress is not None:
            self._progress.session_ended()

    def _context(self, session: Session) -> Context:
        if self._sizes is not None:
            return ChatContext(session, self._sizes.texts, self._sizes.template, self._options.salt)
        assert self._tokenizer is not None, "completions are refused without one"
        return IdsContext(session, self._tokenizer, self._options.salt)

    def _ended(self, record: RequestRecord) -> None:
        self._records.append(record)
        if self._progress is not None:
            self._progress.request_ended(record)


def _peek(sessions: Iterable[Session]) -> tuple[Session, Iterator[Session]]:
    iterator = iter(sessions)
    first = next(iterator, None)
    if first is None:
        raise BenchError("the workload has no session")
    return first, chain([first], iterator)


def _allow_connections() -> None:
    """As many open files as this process may have: each request at a time takes one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems have no such limit to go to
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
