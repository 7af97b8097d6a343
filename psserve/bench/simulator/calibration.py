"""The cost model's constants from measured runs, with what they are off by.

Records tell of single pieces of work that had the machine to themselves (`Samples`); constants are fitted to these by
least squares on relative errors: what a millisecond is off counts by what it is a part of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median

import numpy as np

from psserve.bench.record import RequestRecord, read_records, seconds_per_token
from psserve.bench.simulator.costs import Costs, DecodeCosts, PrefillCosts, TransferCosts
from psserve.bench.simulator.system import SHARED
from psserve.errors import BenchError

FEWEST = 8
"""Pieces of work of a kind that a fit needs."""
REACH = 2
"""Sessions so many times as long as the longest that was measured are refused."""


@dataclass(frozen=True)
class Calibration:
    """Costs, how well each fits, and how far they reach."""

    costs: Costs
    fits: Mapping[str, Fit]
    longest_tokens: int
    """The longest prompt and answer that may be simulated."""


def calibrate(paths: Sequence[Path]) -> Calibration:
    """From files of `psserve bench --records`. Raises BenchError for one that is none, or if they tell too little.

    Only requests that had the machine to themselves are used: a run with one session at a time has them. Then a batch
    is one sequence, so what a further one in a batch costs is not seen: it is taken to pass the layers at the price of
    a token of a prompt, and to cost its context.
    """
    samples = Samples()
    for path in paths:
        header, records = read_records(path)
        samples.add(header.system, records)
    where = ", ".join(map(str, paths))
    fits = {
        "prefill": _fit(where, "prefill", ("batch", "token", "pair"), samples.prefill),
        "decode": _fit(where, "decode", ("answer", "step", "context"), samples.decode),
    }
    transfer = TransferCosts(0.0, 0.0)
    if samples.transfer:
        fits["transfer"] = _fit(where, "transfer", ("request", "token"), samples.transfer)
        request_s, sent_s = fits["transfer"].coefficients
        transfer = TransferCosts(request_s, sent_s)
    batch_s, token_s, pair_s = fits["prefill"].coefficients
    answer_s, step_s, context_s = fits["decode"].coefficients
    sequence_s = min(token_s, step_s)
    costs = Costs(
        PrefillCosts(batch_s, token_s, pair_s),
        DecodeCosts(step_s - sequence_s, context_s, sequence_s),
        transfer,
        kv_bytes=1,  # transfers are fitted by the token
        router_s=median(samples.router) if samples.router else 0.0,
        answer_s=answer_s,
    )
    return Calibration(costs, fits, REACH * samples.longest)


def _fit(where: str, name: str, terms: tuple[str, ...], samples: Sequence[tuple[tuple[float, ...], float]]) -> Fit:
    if len(samples) < FEWEST:
        raise BenchError(
            f"{where}: {len(samples)} requests tell their {name} undisturbed, and {FEWEST} are needed: calibrate with"
            " the records of a run with --concurrency 1"
        )
    return fit(terms, [row for row, _ in samples], [seconds for _, seconds in samples])


@dataclass
class Samples:
    """Rows of the cost model's terms, and the seconds that each took."""

    prefill: list[tuple[tuple[float, ...], float]] = field(default_factory=list)
    decode: list[tuple[tuple[float, ...], float]] = field(default_factory=list)
    transfer: list[tuple[tuple[float, ...], float]] = field(default_factory=list)
    router: list[float] = field(default_factory=list)
    longest: int = 0
    """Tokens of prompt and answer together."""

    def add(self, system: str, records: Sequence[RequestRecord]) -> None:
        """The records of one run. A request that overlaps another one tells nothing: who had the machine is unknown."""
        known: dict[tuple[str, str], int] = {}
        ordered = sorted(records, key=lambda record: record.sent_s)
        busy_until = 0.0
        for record, following in zip(ordered, [*ordered[1:], None], strict=True):
            alone = busy_until <= record.sent_s and (following is None or record.done_s <= following.sent_s)
            busy_until = max(busy_until, record.done_s)
            if record.error is None and record.first_s is not None:
                if alone and not record.warmup:
                    self._add(system, record, known.get((record.session, record.module), 0))
                known[record.session, record.module] = record.prompt_tokens

    def _add(self, system: str, record: RequestRecord, known: int) -> None:
        """`known`: tokens of the prompt that its module's decode server has from before."""
        assert record.first_s is not None
        new, spans = record.prompt_tokens - record.cached_tokens, record.spans
        begin, end = spans.get("prefill", (record.sent_s, record.first_s))
        self._sample(self.prefill, (1, new, new * (new + 2 * record.cached_tokens)), end - begin)
        self._add_decode(system, record)
        if "transfer" in spans:
            begin, end = spans["transfer"]
            self._sample(self.transfer, (1, record.prompt_tokens - known), end - begin)
        if "router_queue" in spans:
            queued = spans.get("prefill_queue", spans["router_queue"])
            self.router.append(queued[1] - spans["router_queue"][0])
        self.longest = max(self.longest, record.prompt_tokens + record.output_tokens)

    def _add_decode(self, system: str, record: RequestRecord) -> None:
        """By the servers' times, if known: pieces of a short answer reach the client together, and say nothing."""
        context = record.prompt_tokens + record.output_tokens / 2
        if "decode" in record.spans:
            steps = record.output_tokens - (system not in SHARED)  # stock SGLang has the first token of the prefill
            begin, end = record.spans["decode"]
            self._sample(self.decode, (1, steps, steps * context), end - begin)
        elif (step := seconds_per_token(record)) is not None:
            self._sample(self.decode, (0, 1, context), step)

    def _sample(self, to: list[tuple[tuple[float, ...], float]], row: tuple[float, ...], seconds: float) -> None:
        if seconds > 0:
            to.append((row, seconds))


@dataclass(frozen=True)
class Fit:
    """seconds = sum(coefficients * terms), with no coefficient below 0: more work never takes less time."""

    terms: tuple[str, ...]
    coefficients: tuple[float, ...]
    residuals: tuple[float, ...]
    """(predicted - measured) / measured, of each point in order."""

    @property
    def error_pct(self) -> float:
        """Mean of the residuals' sizes."""
        return round(100 * float(np.mean(np.abs(self.residuals))), 2)

    @property
    def worst_pct(self) -> float:
        return round(100 * float(np.max(np.abs(self.residuals))), 2)


def fit(terms: tuple[str, ...], rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> Fit:
    """The best coefficients for `rows` (one value a term) that took `seconds` (above 0), each weighted 1 / seconds."""
    measured = np.asarray(seconds, dtype=float)
    weighted = np.asarray(rows, dtype=float) / measured[:, None]
    best = np.zeros(len(terms))
    best_error = np.inf
    for count in range(1, len(terms) + 1):
        for used in combinations(range(len(terms)), count):
            tried = np.zeros(len(terms))
            tried[list(used)] = np.linalg.lstsq(weighted[:, used], np.ones(len(measured)), rcond=None)[0]
            error = float(np.sum((weighted @ tried - 1) ** 2))
            if (tried >= 0).all() and error < best_error * (1 - 1e-9):
                best, best_error = tried, error
    return Fit(terms, tuple(map(float, best)), tuple(map(float, weighted @ best - 1)))
