"""The cost model's constants from measured runs, with what they are off by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from psserve.bench.record import read_records
from psserve.bench.simulator.costs import Costs, DecodeCosts, PrefillCosts, TransferCosts
from psserve.bench.simulator.fitting import Fit, fit
from psserve.bench.simulator.samples import Samples
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
