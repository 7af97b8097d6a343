"""A version on trial in its module's shadow: it answers copies of requests, and only whether it agrees is kept.

The copy is sent once the client has its answer, behind everything that waits, and never while something does; of a busy
module few requests have one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from psserve.contracts.router_config import ModuleConfig
from psserve.errors import RequestError
from psserve.router.admission.admission import Admission
from psserve.router.answers.generation import Generation
from psserve.router.answers.streaming import DATA, SEPARATOR, Events
from psserve.router.body.headers import PRIORITIES
from psserve.router.observability.exchange import Exchange
from psserve.router.observability.versions import ShadowOutcome, VersionMetrics
from psserve.router.pairs.dispatcher import Dispatcher
from psserve.router.pairs.pair import Document, Sequence, check_answer
from psserve.router.workers.workers import WorkerTable

AT_ONCE = 4
"""Requests that have a copy, or are to have one, in one process of a router."""
OF_STREAMS = ("stream", "stream_options")


@dataclass
class Said:
    """What an answer says, however it was sent."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Place of a tool call -> its function's name and arguments."""

    def agrees(self, other: Said) -> bool:
        """Whether the two say the same, white space around it aside."""
        texts = [(said.text.strip(), said.reasoning.strip(), said.calls) for said in (self, other)]
        return texts[0] == texts[1]

    def add(self, choice: Mapping[str, Any]) -> None:
        """Take what a choice says: all of it, or the next part of a stream's."""
        part = choice.get("message") or choice.get("delta") or choice
        self.text += part.get("content") or part.get("text") or ""
        self.reasoning += part.get("reasoning_content") or ""
        for place, call in enumerate(part.get("tool_calls") or ()):
            index = place if call.get("index") is None else call["index"]
            name, arguments = self.calls.get(index, ("", ""))
            function = call["function"]
            self.calls[index] = (name + (function.get("name") or ""), arguments + (function.get("arguments") or ""))


class Listener(Events):
    """Hears an answer on its way to the client."""

    def __init__(self) -> None:
        self._events = Events()
        self._heard: list[bytes] = []
        self.said = Said()

    def between(self, events: Events) -> Listener:
        """Pass a stream on to `events`."""
        self._events = events
        return self

    def hear(self, document: Document) -> None:
        """Hear an answer that is not streamed."""
        self.said.add(document["choices"][0])

    def begin(self, prompt_tokens: int, cached_tokens: int) -> None:
        self._events.begin(prompt_tokens, cached_tokens)

    def feed(self, data: bytes) -> bytes:
        self._heard.append(data)
        return self._events.feed(data)

    def fail(self, error: RequestError) -> bytes:
        return self._events.fail(error)

    def understand(self) -> Said:
        """All that it heard."""
        for event in b"".join(self._heard).split(SEPARATOR):
            if event.startswith(DATA + b"{"):
                for choice in orjson.loads(event.removeprefix(DATA))["choices"]:
                    self.said.add(choice)
        self._heard.clear()
        return self.said


class Shadows:
    """The copies that one router has under way."""

    def __init__(
        self, dispatcher: Dispatcher, table: WorkerTable, admission: Admission, metrics: VersionMetrics
    ) -> None:
        self._dispatcher, self._table, self._admission, self._metrics = dispatcher, table, admission, metrics
        self._under_way = 0
        self._copies: set[asyncio.Task[None]] = set()

    @contextmanager
    def beside(self, generation: Generation, exchange: Exchange) -> Iterator[Listener | None]:
        """While `generation` is answered: who must hear it, if a copy is to follow, which does once it has ended."""
        trial, tried = generation.module.trial, self._table.tried(generation.module)
        is_compared = len(generation.sequences) == 1 and not generation.sequences[0].given
        if trial is None or tried is None or not trial.shadow or not is_compared:
            yield None
            return
        if self._under_way >= AT_ONCE:
            self._metrics.shadowed(tried, "skipped")
            yield None
            return
        listener = Listener()
        self._under_way += 1
        try:
            yield listener
        except BaseException:
            self._under_way -= 1
            raise
        copy = asyncio.create_task(self._compare(tried, generation.sequences[0], listener, exchange))
        self._copies.add(copy)
        copy.add_done_callback(self._end)

    async def close(self) -> None:
        """Break off what is under way."""
        for copy in self._copies:
            copy.cancel()
        if self._copies:
            await asyncio.wait(self._copies)

    def _end(self, copy: asyncio.Task[None]) -> None:
        self._under_way -= 1
        self._copies.discard(copy)

    async def _compare(self, tried: ModuleConfig, sequence: Sequence, listener: Listener, exchange: Exchange) -> None:
        if exchange.usage is None or exchange.failed is not None or self._admission.waiting:
            self._metrics.shadowed(tried, "skipped")
            return
        decode = {name: value for name, value in sequence.decode.items() if name not in OF_STREAMS}
        copy = replace(sequence, decode=decode, priority=PRIORITIES.start, deadlines=None)
        try:
            with self._table.hold(tried):
                async with self._dispatcher.open(tried, copy) as legs:
                    document = check_answer(legs, await legs.read())
        except RequestError:
            self._metrics.shadowed(tried, "failed")
            return
        said = Said()
        said.add(document["choices"][0])
        outcome: ShadowOutcome = "same" if said.agrees(listener.understand()) else "different"
        if decode.get("temperature") != 0:
            outcome = "sampled"
        tokens = (exchange.usage["completion_tokens"], document["usage"]["completion_tokens"])
        self._metrics.shadowed(tried, outcome, tokens)
