"""One sequence on one pair of workers: both legs start together, are owned together, and end together.

        +--> prefill leg: prompt-shaping fields, one token; its answer is checked and thrown away --+
  open -+                                                                                           +-> Legs
        +--> decode leg: the client's body; its bytes are held until the prefill leg has answered --+

Whatever ends a sequence early (a failed leg, the deadline, a client that left) closes both connections and aborts the
request on both workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from time import monotonic

import aiohttp
import orjson

from psserve.contracts.router_config import ModuleConfig, RouterConfig
from psserve.router.admission.admission import Admission, Grant
from psserve.router.body.headers import Deadlines
from psserve.router.body.output import grammar_field
from psserve.router.observability.exchange import SequenceRecord
from psserve.router.observability.metrics import Metrics
from psserve.router.observability.tracing import leg_span, traced_leg
from psserve.router.pairs.pair import Legs, Pair, PrefillUsage, Sequence
from psserve.router.pairs.retry import RetryBudget, backoff_s, is_retried
from psserve.router.placement.routing import Routing
from psserve.router.workers.failures import LegFailure, Reason, about_grammar, broken, not_loaded, stream_error
from psserve.router.workers.tasks import Deadline, Timeout, by, together
from psserve.router.workers.upstream import ERROR_LIMIT, Upstream
from psserve.router.workers.workers import Worker, WorkerTable

ERROR_EVENT = b'data: {"error"'
EVENT_END = b"\n\n"
HELD_AGAINST: frozenset[Reason] = frozenset({"error", "aborted", "malformed", "split"})
"""Failures that count for a worker's breaker. Connections that break mark it down at once (see upstream.py).

Not `unhandled`: one client's mistake must not take the worker from the others. A probe tells which it was (health.py).
"""


class Dispatcher:
    """Runs sequences on pairs of workers."""

    def __init__(
        self,
        config: RouterConfig,
        table: WorkerTable,
        upstream: Upstream,
        metrics: Metrics,
        routing: Routing,
        admission: Admission,
    ) -> None:
        self._table = table
        self._upstream = upstream
        self._metrics = metrics
        self._routing = routing
        self._admission = admission
        self._budget = RetryBudget()
        self._longest_s, self._first_byte_s = config.request_timeout_s, config.first_byte_timeout_s
        self._telling_s = 0.9 * min(self._longest_s, self._first_byte_s, config.breaker.stall_secs)

    @asynccontextmanager
    async def open(self, module: ModuleConfig, sequence: Sequence) -> AsyncIterator[Legs]:
        """Run `sequence` on workers of the policy's choice; leaving the context by an exception aborts it.

        It waits for its turn, and what fails before its first byte is tried again (see retry.py). The waiting for
        `sequence.after` and for the turn, and all attempts, end at `begin_by` of its deadlines, and the body of
        `async with` at `end_by`.
        Raises RequestError: LegFailure, or 408, 429 or 503 of `Admission.enter`, or 504 timeout.
        """
        sequence = sequence.of(module)
        deadlines = sequence.deadlines or Deadlines.from_now(self._longest_s, self._first_byte_s)
        if sequence.after is not None:
            async with Deadline(deadlines.begin_by):
                await sequence.after.wait()
        with ExitStack() as held:
            legs = await self._start_admitted(held, module, sequence, deadlines)
            async with self._owned(legs, deadlines.end_by):
                yield legs

    @asynccontextmanager
    async def open_on(self, pair: Pair, sequence: Sequence, timeout_s: float) -> AsyncIterator[Legs]:
        """Like `open`, on exactly this pair."""
        deadlines = Deadlines.from_now(timeout_s, timeout_s)
        legs = await self._start(pair, sequence, deadlines)
        async with self._owned(legs, deadlines.end_by):
            yield legs

    async def _start_admitted(
        self, held: ExitStack, module: ModuleConfig, sequence: Sequence, deadlines: Deadlines
    ) -> Legs:
        """Start `sequence` once it is let in, and again where that may help. `held` keeps what it takes up."""
        async with Deadline(deadlines.begin_by):
            request = await self._routing.request(sequence.affinity, sequence.prefill, sequence.decode)
        self._budget.request()
        failed: set[Worker] = set()
        grant: Grant | None = None
        fresh = False
        attempt = 0
        while True:
            attempt += 1
            if grant is None:
                async with Deadline(deadlines.begin_by):
                    is_first = attempt == 1 and sequence.after is None
                    grant = await self._admission.enter(
                        module, request, priority=sequence.priority, is_bounded=is_first, avoid=failed
                    )
                held.callback(grant.end)
            pair = Pair(grant.prefill, grant.decode, fresh=fresh, attempt=attempt, grant=grant)
            try:
                return await self._start(pair, sequence, deadlines)
            except LegFailure as failure:
                if not self._goes_again(failure, attempt):
                    raise
                # Stale: the same workers, for a request that kills servers must not be carried to others.
                fresh = failure.reason == "stale"
                failed.add(failure.worker)
            if not fresh:
                held.close()
                grant = None
                async with Deadline(deadlines.begin_by):
                    await asyncio.sleep(backoff_s(attempt))

    def _goes_again(self, failure: LegFailure, attempt: int) -> bool:
        if not is_retried(failure, attempt):
            return False
        if not self._budget.retry():
            self._metrics.load.retries_denied.inc()
            return False
        self._metrics.load.retries.labels(failure.role, failure.reason).inc()
        return True

    async def _start(self, pair: Pair, sequence: Sequence, deadlines: Deadlines) -> Legs:
        """Send both legs; returns when both have answered."""
        started = monotonic()
        pair.decode.begin()
        record = pair.record(started, is_first=sequence.after is None)
        opened: list[aiohttp.ClientResponse] = []
        # A decode worker sends the header of an answer that is no stream only with the whole answer.
        decode_by = deadlines.begin_by if sequence.decode.get("stream") else deadlines.end_by
        try:
            prefill, opening = await together(
                by(deadlines.begin_by, self._prefill(pair, sequence, record)),
                by(decode_by, self._decode(pair, sequence, record, opened)),
            )
        except BaseException as error:
            pair.decode.running -= 1
            for response in opened:
                response.close()
            record.end_span(error)
            self._abandon(pair, error, started)
            raise
        record.answered = monotonic()
        return Legs(pair, self._upstream, opened[0], prefill, record, opening)

    @asynccontextmanager
    async def _owned(self, legs: Legs, deadline: float) -> AsyncIterator[None]:
        try:
            async with Deadline(deadline):
                yield
            legs.pair.decode.last_answer = monotonic()
            if legs.pair.grant is not None:
                legs.pair.decode.breaker.succeeded()
        except BaseException as error:
            self._abandon(legs.pair, error, legs.record.started)
            legs.record.end_span(error)
            raise
        finally:
            legs.response.close()  # nothing to close once the body was read to its end
            legs.record.end_span()
            legs.pair.decode.running -= 1

    async def _prefill(self, pair: Pair, sequence: Sequence, record: SequenceRecord) -> PrefillUsage:
        pair.prefill.begin()
        try:
            body = orjson.dumps(sequence.prefill | pair.fields())
            with traced_leg("prefill", pair.prefill.name, sequence.headers) as headers:
                response = await self._upstream.post(pair.prefill, sequence.path, body, headers, fresh=pair.fresh)
                usage = _prefill_usage(pair.prefill, await self._upstream.read(pair.prefill, response))
        finally:
            pair.prefill.running -= 1
        sequence.prefilled.set()
        sequence.affinity.read_tokens = usage.prompt_tokens + 1
        record.prefilled = pair.prefill.last_sign = monotonic()
        record.prompt_tokens = usage.prompt_tokens
        if pair.grant is not None:
            pair.prefill.breaker.succeeded()
            pair.grant.prefilled(sequence.prefill, usage.prompt_tokens)
            record.shared_tokens = pair.grant.shared_tokens(usage.prompt_tokens, usage.cached_tokens)
        return usage

    async def _decode(
        self, pair: Pair, sequence: Sequence, record: SequenceRecord, opened: list[aiohttp.ClientResponse]
    ) -> bytes:
        """Adds the answer to `opened` at once: whoever cancels us must be able to close it. Returns a stream's opening.

        A stream that begins with an error has not begun: it fails as one that was answered by an error status.
        """
        try:
            return await self._answered(pair, sequence, record, opened)
        except LegFailure as failure:
            if named := about_grammar(failure, grammar_field(sequence.decode)):
                raise named from failure
            module = sequence.module
            if module is None or module.adapter is None or (found := not_loaded(failure, module.name)) is None:
                raise
            pair.decode.could_not_load(module.adapter)
            raise found from failure

    async def _answered(
        self, pair: Pair, sequence: Sequence, record: SequenceRecord, opened: list[aiohttp.ClientResponse]
    ) -> bytes:
        body = orjson.dumps(sequence.decode | pair.fields())
        record.decode_span = leg_span("decode", pair.decode.name)
        headers = {**sequence.headers, **record.decode_span.headers}
        opened.append(await self._upstream.post(pair.decode, sequence.path, body, headers, fresh=pair.fresh))
        pair.decode.last_sign = monotonic()
        if not sequence.decode.get("stream"):
            return b""
        opening = await self._opening(pair.decode, opened[0])
        if opening.startswith(ERROR_EVENT):
            raise stream_error(pair.decode, opening)
        if opening:
            record.arrived(opening)
        return opening

    async def _opening(self, worker: Worker, response: aiohttp.ClientResponse) -> bytes:
        """A stream's first event, and what came with it."""
        opening = b""
        while EVENT_END not in opening and len(opening) < ERROR_LIMIT:
            data = await self._upstream.read_some(worker, response)
            if not data:
                break
            opening += data
        return opening

    def _abandon(self, pair: Pair, error: BaseException, started: float) -> None:
        """Free both workers of a sequence that ended with `error`, and draw conclusions from it."""
        self._upstream.abort(pair.prefill, pair.rid)
        self._upstream.abort(pair.decode, pair.rid)
        if isinstance(error, LegFailure):
            self._metrics.leg_failed(error, pair.rid)
            if error.reason == "unhandled":
                error.worker.is_suspect = True
            if pair.grant is not None and error.reason in HELD_AGAINST:
                self._table.failed(error.worker, pair.decode if error.worker is pair.prefill else pair.prefill)
        elif isinstance(error, Timeout) and self._tells(pair, started):
            self._table.doubt(pair.decode, "a request ran into its deadline and none was answered meanwhile")

    def _tells(self, pair: Pair, started: float) -> bool:
        """Whether a deadline that passed says something of the decode worker: clients may ask for very short ones."""
        return pair.decode.last_answer < started <= monotonic() - self._telling_s


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
