"""One sequence on one pair of workers: both legs start together, are owned together, and end together.

        +--> prefill leg: prompt-shaping fields, one token; its answer is checked and thrown away --+
  open -+                                                                                           +-> Legs
        +--> decode leg: the client's body; its bytes are held until the prefill leg has answered --+

Whatever ends a sequence early (a failed leg, the deadline, a client that left) closes both connections and aborts the
request on both workers.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import aiohttp
import orjson

from psserve.errors import RequestError
from psserve.router.config import ModuleConfig
from psserve.router.failures import LegFailure, broken, split_mismatch
from psserve.router.metrics import Metrics
from psserve.router.observability.sequence import SequenceRecord
from psserve.router.observability.tracing import leg_span, traced_leg
from psserve.router.routing import Affinity, Place, Routing
from psserve.router.tasks import together
from psserve.router.upstream import Upstream
from psserve.router.workers import Worker, WorkerTable

Body = dict[str, Any]


@dataclass(frozen=True)
class Sequence:
    """One answer to generate: bodies of both legs, without the pairing fields."""

    path: str
    prefill: Body
    decode: Body
    index: int = 0
    """Of its choice in the client's answer."""
    prompt_index: int = 0
    """Of its prompt in the client's request: usage counts each prompt once."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Passed on to both workers."""
    prefilled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the base has computed the prompt."""
    after: asyncio.Event | None = None
    """What it waits for before it starts: another sequence's `prefilled`, so that one prompt is computed once."""
    affinity: Affinity = field(default_factory=Affinity)
    """Shared by the choices of one prompt."""


@dataclass(frozen=True)
class Pair:
    """Two workers and the names they know one attempt by. Never used for a second attempt."""

    prefill: Worker
    decode: Worker
    room: int = field(default_factory=lambda: secrets.randbelow(2**63 - 1) + 1)
    rid: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Fixed length: SGLang's abort matches ids by prefix."""
    fresh: bool = False
    """Use no pooled connection."""
    place: Place | None = None
    """None where no policy chose the workers."""

    def fields(self) -> Body:
        """What tells the workers of each other. In the body: SGLang reads headers on the chat endpoint only."""
        return {
            "rid": self.rid,
            "bootstrap_host": self.prefill.config.host,
            "bootstrap_port": self.prefill.config.bootstrap_port,
            "bootstrap_room": self.room,
        }


@dataclass(frozen=True)
class PrefillUsage:
    """What the prefill leg reported, in tokens."""

    prompt_tokens: int
    cached_tokens: int


@dataclass
class Legs:
    """A pair whose prefill leg is done and whose decode leg answers."""

    pair: Pair
    upstream: Upstream
    response: aiohttp.ClientResponse
    prefill: PrefillUsage
    started: float
    """When the legs were sent (monotonic seconds)."""
    answered: float
    """When the slower leg had answered."""
    record: SequenceRecord

    async def read(self) -> bytes:
        payload = await self.upstream.read(self.pair.decode, self.response)
        self.record.whole()
        return payload

    async def read_some(self) -> bytes:
        data = await self.upstream.read_some(self.pair.decode, self.response)
        if data:
            self.record.arrived(data)
        return data

    def check_split(self, decode_prompt_tokens: Any) -> None:
        """The rule of design.md section 1: the base computed all of the prompt but its last token.

        A prompt of one token shares nothing, and both sides count it as one. Raises LegFailure.
        """
        both_one = self.prefill.prompt_tokens == decode_prompt_tokens == 1
        if not both_one and self.prefill.prompt_tokens + 1 != decode_prompt_tokens:
            raise split_mismatch(self.pair.decode, self.prefill.prompt_tokens, decode_prompt_tokens)


class Dispatcher:
    """Runs sequences on pairs of workers."""

    def __init__(
        self, table: WorkerTable, upstream: Upstream, metrics: Metrics, routing: Routing, timeout_s: float
    ) -> None:
        self._table = table
        self._upstream = upstream
        self._metrics = metrics
        self._routing = routing
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def open(self, module: ModuleConfig, sequence: Sequence) -> AsyncIterator[Legs]:
        """Run `sequence` on workers of the policy's choice; leaving the context by an exception aborts it.

        A pair that cannot have started is tried once more. The deadline covers the waiting for `sequence.after`, both
        attempts and the `async with` body.
        Raises RequestError: LegFailure, or 503 module_unavailable, or 504 timeout.
        """
        deadline = monotonic() + self._timeout_s
        if sequence.after is not None:
            async with _deadline(deadline):
                await sequence.after.wait()
        with ExitStack() as places:
            legs = await self._start_placed(places, module, sequence, deadline)
            async with self._owned(legs, deadline):
                yield legs

    @asynccontextmanager
    async def open_on(self, pair: Pair, sequence: Sequence, timeout_s: float) -> AsyncIterator[Legs]:
        """Like `open`, on exactly this pair."""
        deadline = monotonic() + timeout_s
        legs = await self._start(pair, sequence, deadline)
        async with self._owned(legs, deadline):
            yield legs

    async def _start_placed(self, places: ExitStack, module: ModuleConfig, sequence: Sequence, deadline: float) -> Legs:
        """Start `sequence` where the policies say, in a second place too if the first cannot have begun it.

        `places` keeps what the sequence takes up there.
        """
        request = await self._routing.request(sequence.affinity, sequence.prefill, sequence.decode)
        place = places.enter_context(self._routing.place(module, request))
        try:
            return await self._start(Pair(place.prefill, place.decode, place=place), sequence, deadline)
        except LegFailure as failure:
            if failure.reason not in ("connect", "stale"):
                raise
            if failure.reason == "connect":
                places.close()
                place = places.enter_context(self._routing.place(module, request))
            # Stale: the same workers, for a request that kills servers must not be carried to others.
            second = Pair(place.prefill, place.decode, fresh=failure.reason == "stale", place=place)
        return await self._start(second, sequence, deadline)

    async def _start(self, pair: Pair, sequence: Sequence, deadline: float) -> Legs:
        """Send both legs; returns when both have answered."""
        started = monotonic()
        pair.decode.running += 1
        record = SequenceRecord(sequence.after is None, started)
        opened: list[aiohttp.ClientResponse] = []
        try:
            async with _deadline(deadline):
                prefill, _ = await together(self._prefill(pair, sequence, record), self._decode(pair, sequence, opened))
        except BaseException as error:
            pair.decode.running -= 1
            for response in opened:
                response.close()
            record.end_span(error)
            self._abandon(pair, error, started)
            raise
        return Legs(pair, self._upstream, opened[0], prefill, started, monotonic(), record)

    @asynccontextmanager
    async def _owned(self, legs: Legs, deadline: float) -> AsyncIterator[None]:
        try:
            async with _deadline(deadline):
                yield
            legs.pair.decode.last_answer = monotonic()
        except BaseException as error:
            self._abandon(legs.pair, error, legs.started)
            legs.record.end_span(error)
            raise
        finally:
            legs.response.close()  # nothing to close once the body was read to its end
            legs.record.end_span()
            legs.pair.decode.running -= 1

    async def _prefill(self, pair: Pair, sequence: Sequence, record: SequenceRecord) -> PrefillUsage:
        pair.prefill.running += 1
        try:
            body = orjson.dumps(sequence.prefill | pair.fields())
            with traced_leg("prefill", pair.prefill.name, sequence.headers) as headers:
                response = await self._upstream.post(pair.prefill, sequence.path, body, headers, fresh=pair.fresh)
                usage = _prefill_usage(pair.prefill, await self._upstream.read(pair.prefill, response))
        finally:
            pair.prefill.running -= 1
        sequence.prefilled.set()
        record.prefilled = monotonic()
        record.prompt_tokens = usage.prompt_tokens
        if pair.place is not None:
            pair.place.prefilled(sequence.prefill, usage.prompt_tokens)
            record.shared_tokens = pair.place.shared_tokens(usage.prompt_tokens, usage.cached_tokens)
        return usage

    async def _decode(self, pair: Pair, sequence: Sequence, opened: list[aiohttp.ClientResponse]) -> None:
        """Adds the answer to `opened` at once: whoever cancels us must be able to close it."""
        body = orjson.dumps(sequence.decode | pair.fields())
        record.decode_span = leg_span("decode", pair.decode.name)
        headers = {**sequence.headers, **record.decode_span.headers}
        opened.append(await self._upstream.post(pair.decode, sequence.path, body, headers, fresh=pair.fresh))

    def _abandon(self, pair: Pair, error: BaseException, started: float) -> None:
        """Free both workers of a sequence that ended with `error`, and draw conclusions from it."""
        self._upstream.abort(pair.prefill, pair.rid)
        self._upstream.abort(pair.decode, pair.rid)
        if isinstance(error, LegFailure):
            self._metrics.leg_failed(error, pair.rid)
        elif isinstance(error, Timeout) and pair.decode.last_answer < started:
            self._table.doubt(pair.decode, "a request ran into its deadline and none was answered meanwhile")


class Timeout(RequestError):
    """The request's deadline passed."""

    def __init__(self) -> None:
        super().__init__(504, "the request took longer than this server allows", type="server_error", code="timeout")


@asynccontextmanager
async def _deadline(when: float) -> AsyncIterator[None]:
    """Cancel what is inside at `when` (monotonic seconds). Raises Timeout."""
    scope = asyncio.timeout(when - monotonic())
    try:
        async with scope:
            yield
    except TimeoutError:
        if scope.expired():
            raise Timeout from None
        raise


def _prefill_usage(worker: Worker, payload: bytes) -> PrefillUsage:
    """Check a prefill answer: a leg that gave up still answers 200, and its KV must not be used (raises LegFailure)."""
    try:
        answer = orjson.loads(payload)
        finish_reason = answer["choices"][0]["finish_reason"]
        usage = answer["usage"]
        details = usage.get("prompt_tokens_details") or {}
        result = PrefillUsage(int(usage["prompt_tokens"]), int(details.get("cached_tokens") or 0))
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise broken(worker, "malformed", f"prefill answer: {error!r}") from error
    if finish_reason in ("abort", "error"):
        raise broken(worker, "aborted", f"prefill finish_reason {finish_reason!r}")
    return result
