"""The result line of a simulated run: the same keys as a measured one, marked `simulated`.

And for people: such lines as a table, and what a calibration has fitted and is off by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from psserve.bench.metrics import Slo, summarise
from psserve.bench.record import mean_seconds
from psserve.bench.result import ResultLine, RunFacts, result_line
from psserve.bench.simulator.calibration import Calibration
from psserve.bench.simulator.simulation import FleetLoad, SimulatedRun
from psserve.bench.simulator.system import Setup
from psserve.console import show, table


def line_of(
    outcome: SimulatedRun,
    setup: Setup,
    load: FleetLoad,
    *,
    workload: Mapping[str, Any],
    basis: Mapping[str, Any],
    command: str,
    slo: Slo | None = None,
) -> ResultLine:
    """`basis`: what the costs are from. No clock and no machine is in it: the same command writes the same bytes."""
    asked = {"concurrency": load.concurrency, "sessions_per_s": load.rate, "warmup": load.warmup}
    facts = RunFacts(
        run=f"{setup.system}.m{len(setup.modules)}.{_name(load)}.simulated",
        system=setup.system,
        modules=setup.modules,
        workload=workload,
        load=asked,
        command=command,
        started=0.0,
        simulated=True,
        extra={
            "machine": {},
            "settings": _settings(setup) | dict(basis),
            "counters": _counters(outcome),
            "phases_s": mean_seconds(record for record in outcome.records if not record.warmup),
        },
    )
    line = result_line(summarise(outcome.records, slo), facts)
    return line if outcome.every == 1 else _whole(line, outcome)


def _name(load: FleetLoad) -> str:
    if load.concurrency is not None:
        return f"c{load.concurrency}"
    return "trace" if load.rate is None else f"r{load.rate:g}"


def _settings(setup: Setup) -> dict[str, Any]:
    """Those of one cell."""
    left_out = ("system", "modules", "costs")
    return {name: value for name, value in asdict(setup).items() if name not in left_out and value is not None}


def _counters(outcome: SimulatedRun) -> dict[str, Any]:
    """Of the whole run, warm-up included, by the names of a measured run's."""
    counted, duration = outcome.counters, outcome.duration_s
    prompts = counted.prompt_tokens or 1
    return {
        "seconds": duration,
        "prefill": {
            "requests": counted.requests,
            "prompt_tokens": counted.prompt_tokens,
            "cached_tokens": counted.cached_tokens,
            "computed_tokens": counted.computed_tokens,
            "hit_ratio": counted.cached_tokens / prompts,
        },
        "decode": {
            "cached_tokens": counted.decode_cached_tokens,
            "hit_ratio": counted.decode_cached_tokens / prompts,
        },
        "kv_bytes": counted.kv_bytes,
        "busy_share": [round(busy / duration, 4) if duration else 0.0 for busy in outcome.busy_s],
        "evicted_pages": sum(outcome.evicted_pages),
    }


def _whole(line: ResultLine, outcome: SimulatedRun) -> ResultLine:
    """Where only some sessions were kept: percentiles are theirs, totals and rates are of all."""
    counted, duration = outcome.counters, outcome.duration_s
    totals = {
        "duration": duration,
        "completed": counted.requests,
        "total_input_tokens": counted.prompt_tokens,
        "total_input_text_tokens": counted.prompt_tokens,
        "total_output_tokens": counted.output_tokens,
        "request_throughput": counted.requests / duration,
        "input_throughput": counted.prompt_tokens / duration,
        "output_throughput": counted.output_tokens / duration,
        "total_throughput": (counted.prompt_tokens + counted.output_tokens) / duration,
        "concurrency": line["mean_e2e_latency_ms"] / 1000 * counted.requests / duration,
        "max_concurrent_requests": None,
    }
    ours = line["psserve"]
    sessions = ours["sessions"] | {
        "completed": counted.sessions,
        "session_throughput": counted.sessions / duration,
    }
    client = ours["client"] | {"asked_sessions_per_s": None, "sent_sessions_per_s": None, "warnings": []}
    return line | totals | {"psserve": ours | {"sessions": sessions, "client": client, "kept_one_in": outcome.every}}


_COLUMNS = (
    *("system", ">modules", ">load", ">sessions/s", ">requests/s", ">p50 session s", ">p95 session s"),
    *(">p95 TTFT s", ">p50 TPOT ms", ">prefill hits", ">busy"),
)


def show_lines(lines: Sequence[ResultLine], out: Console) -> None:
    """One line a run, under a title that says what these figures are."""
    out.print("simulated, not measured")
    show(table(_COLUMNS, _rows(lines)), out)


def _rows(lines: Iterable[ResultLine]) -> Iterable[tuple[str, ...]]:
    for line in lines:
        ours = line["psserve"]
        sessions = ours["sessions"]
        busy = ours["counters"]["busy_share"]
        yield (
            ours["system"],
            str(len(ours["modules"])),
            _load(**ours["load"]),
            f"{sessions['session_throughput']:.3f}",
            f"{line['request_throughput']:.2f}",
            f"{sessions['median_session_latency_ms'] / 1000:.2f}",
            f"{sessions['p95_session_latency_ms'] / 1000:.2f}",
            f"{line['p95_ttft_ms'] / 1000:.3f}",
            f"{line['median_tpot_ms']:.2f}",
            f"{line['cache_report']['cache_hit_rate_pct']:.1f}%",
            f"{sum(busy) / len(busy):.0%}",
        )


def _load(concurrency: int | None, sessions_per_s: float | None, **_: Any) -> str:
    if concurrency is not None:
        return f"{concurrency} at a time"
    return "trace" if sessions_per_s is None else f"{sessions_per_s:g}/s"


def show_calibration(calibration: Calibration, out: Console) -> None:
    """One line a piece of work, then how far it reaches."""
    show(table(("fitted", ">points", ">mean error", ">worst", "seconds"), _fitted(calibration)), out)
    out.print(f"sessions up to {calibration.longest_tokens} tokens, twice the longest measured, may be simulated")


def _fitted(calibration: Calibration) -> Iterable[tuple[str, ...]]:
    for name, fit in calibration.fits.items():
        terms = (f"{value:.3g} a {term}" for term, value in zip(fit.terms, fit.coefficients, strict=True))
        yield name, str(len(fit.residuals)), f"{fit.error_pct:.1f}%", f"{fit.worst_pct:.1f}%", " + ".join(terms)
