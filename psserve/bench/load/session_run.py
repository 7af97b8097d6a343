"""One session, step by step, against the servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from psserve.bench.load.context import Context
from psserve.bench.load.endpoints import Called, Sender
from psserve.bench.load.stream import Streamed
from psserve.bench.record import INTERRUPTED, RequestRecord
from psserve.bench.session import Call, Session, Step


class Due(NamedTuple):
    """A call that is to be made."""

    step: int
    call: int
    asked: Call
    moment: float
    """Of `time.perf_counter`."""


async def sleep_until(moment: float) -> None:
    """Sleep until `moment` of `time.perf_counter`, never less: timers go by milliseconds, and may ring before it."""
    while True:
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        if time.perf_counter() >= moment:
            return


class SessionRun:
    """Runs one session once. Records of its requests go to `sink` as they end."""

    def __init__(
        self,
        session: Session,
        context: Context,
        sender: Sender,
        sink: Callable[[RequestRecord], None],
        *,
        salt: str = "",
        start: float,
        arrived: float | None = None,
        warmup: bool = False,
    ) -> None:
        """`start`: the moment (`time.perf_counter`) that the records' times count from. `arrived`: that at which a
        session arrived that may have had to wait."""
        self._session, self._context, self._sender, self._sink = session, context, sender, sink
        self._name = f"{salt}-{session.id}" if salt else session.id
        self._start, self._arrived, self._warmup = start, arrived, warmup

    async def run(self, due: float | None = None) -> None:
        """Make all calls, beginning at the moment `due` (None: now), up to the end or the first failure.

        When cancelled, the calls under way, or the one that was coming, are recorded as interrupted.
        """
        moment = time.perf_counter() if due is None else due
        for number, step in enumerate(self._session.steps):
            moment += step.delay_s
            calls = [Due(number, place, call, moment) for place, call in enumerate(step.calls)]
            await self._wait(moment, calls[0])
            if not await self._step(step, calls):
                return
            moment = time.perf_counter()

    async def _wait(self, moment: float, coming: Due) -> None:
        try:
            await sleep_until(moment)
        except asyncio.CancelledError:
            now = time.perf_counter()
            self._sink(self._record(coming, _interrupted(now)))
            raise

    async def _step(self, step: Step, calls: list[Due]) -> bool:
        """Whether all calls were answered; the first answer then is in the context."""
        self._context.add(calls[0].step)
        if len(calls) == 1:
            made = [await self._call(calls[0])]
        else:
            made = await asyncio.gather(*map(self._call, calls))
        if any(called.error is not None for called in made):
            return False
        first = made[0].streamed
        self._context.answered(first.text, first.counts.prompt, step.calls[0].output_tokens)
        return True

    async def _call(self, due: Due) -> Called:
        headers = {"x-session-id": self._name, "x-request-id": self._request_id(due)}
        called = _interrupted(time.perf_counter())
        try:
            asked = due.asked
            called = await self._sender.call(
                asked.module, self._context.prompt(), asked.output_tokens, headers, called.streamed
            )
        finally:  # cancelled, too
            self._sink(self._record(due, called))
        return called

    def _request_id(self, due: Due) -> str:
        return f"{self._name}-{due.step}-{due.call}"

    def _record(self, due: Due, called: Called) -> RequestRecord:
        streamed, since = called.streamed, self._start
        moments = tuple(moment - since for moment in streamed.moments)
        return RequestRecord(
            session=self._session.id,
            step=due.step,
            call=due.call,
            module=due.asked.module,
            due_s=due.moment - since,
            sent_s=called.sent - since,
            first_s=moments[0] if moments else None,
            done_s=max(streamed.done, called.sent) - since,
            chunk_s=moments,
            prompt_tokens=streamed.counts.prompt,
            cached_tokens=streamed.counts.cached,
            output_tokens=streamed.counts.output,
            asked_tokens=due.asked.output_tokens,
            error=called.error,
            warmup=self._warmup,
            arrived_s=None if self._arrived is None or due.step else self._arrived - since,
            request_id=self._request_id(due),
            answer_id=streamed.id,
        )


def _interrupted(now: float) -> Called:
    """A call as it stands before it has an end."""
    return Called(now, Streamed(), INTERRUPTED)
