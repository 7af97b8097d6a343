"""How far simulated runs are from measured ones: the runs of a comparison, simulated one by one.

What is simulated are the sessions that made the records of a run: the same lengths, modules and pauses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from psserve.bench.metrics import summarise
from psserve.bench.record import RequestRecord, read_records
from psserve.bench.result import ResultLine
from psserve.bench.session import Call, Session, Step
from psserve.bench.simulator.calibration import calibrate
from psserve.bench.simulator.costs import Costs
from psserve.bench.simulator.simulation import simulate
from psserve.bench.simulator.system import SHARED, SYSTEMS, Setup
from psserve.errors import BenchError
from psserve.fleet.plan.sglang_args import reserved_tokens

FIGURES = ("sessions_per_s", "p50_session_s", "p95_session_s")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What each system of the comparison had, as `psserve bench compare` was told."""

    kv_tokens: int
    """Of all servers of a system together."""
    cores: Mapping[str, float]
    """By system: how many its servers share, see Setup. One that is not named has a device for each server."""
    chunk: int
    prefill_servers: int = 1
    """Of `shared`."""


def validate(lines: Sequence[ResultLine], records: Path, resources: Resources) -> list[dict[str, Any]]:
    """A row for each system and number of sessions at a time, with the middle of the repeats and the simulation.

    Costs are calibrated for each system by its runs with one session at a time; rows of other loads are predicted.
    `records`: folder with the requests of each run, by the run's name. Raises BenchError where a system has no run with
    one session at a time, or a file is damaged.
    """
    runs: dict[tuple[str, int, int], list[ResultLine]] = defaultdict(list)
    for line in lines:
        told = line["psserve"]
        if told["system"] in SYSTEMS and not told["partial"] and told["load"]["concurrency"] is not None:
            runs[told["system"], len(told["modules"]), told["load"]["concurrency"]].append(line)
    rows = []
    for system, modules, concurrency in sorted(runs):
        quiet = runs.get((system, modules, 1))
        if quiet is None:
            raise BenchError(f"{system}, {modules} modules: no run with one session at a time to calibrate by")
        costs = calibrate([_records(records, line) for line in quiet]).costs
        rows.append(_row(runs[system, modules, concurrency], records, costs, resources))
    return rows


def _row(lines: Sequence[ResultLine], records: Path, costs: Costs, resources: Resources) -> dict[str, Any]:
    first = lines[0]["psserve"]
    measured = [_figures(read_records(_records(records, line))[1]) for line in lines]
    simulated = [_figures(_simulated(line, records, costs, resources)) for line in lines]
    row: dict[str, Any] = {"system": first["system"], "modules": len(first["modules"])}
    row |= {"concurrency": first["load"]["concurrency"], "repeats": len(lines)}
    for name in FIGURES:
        was, new = (median(figures[name] for figures in each) for each in (measured, simulated))
        row[name] = {"measured": was, "simulated": new, "error_pct": round(100 * (new / was - 1), 1)}
    return row


def _simulated(line: ResultLine, records: Path, costs: Costs, resources: Resources) -> list[RequestRecord]:
    told = line["psserve"]
    setup = _setup(told, costs, resources)
    counted = [record for record in read_records(_records(records, line))[1] if not record.warmup]
    sessions = sessions_of(counted, round(told["workload"]["system"] * told["workload"]["scale"]))
    return simulate(setup, sessions, told["load"]["concurrency"]).records


def _setup(told: Mapping[str, Any], costs: Costs, resources: Resources) -> Setup:
    """The system of a run, by what its result line tells of it."""
    system, modules = told["system"], tuple(told["modules"])
    count = len(modules)
    servers: Mapping[str, tuple[int, int]] = {
        **dict.fromkeys(SHARED, (resources.prefill_servers, count)),
        "disaggregated": (count, count),
        "colocated": (count, 0),
        "lora": (1, 0),
        "single": (1, 0),
    }
    prefill, decode = servers[system]
    pool, decode_pool = _pools(told, resources.kv_tokens, prefill, decode)
    return Setup(
        system=next(known for known in SYSTEMS if known == system),
        modules=modules,
        prefill=prefill,
        decode=decode,
        costs=costs,
        kv_tokens=pool,
        decode_kv_tokens=decode_pool,
        chunk=resources.chunk,
        reserved_tokens=reserved_tokens(decode_pool or pool),
        cores=resources.cores.get(system),
    )


def _pools(told: Mapping[str, Any], tokens: int, prefill: int, decode: int) -> tuple[int, int | None]:
    """KV tokens of a prefill (or whole) and of a decode server, as psserve.bench.systems planned them.

    A fleet's are in the result line; of other pairs, half are the prefill servers'.
    """
    fleet = told.get("settings", {}).get("fleet")
    if fleet is not None:
        return fleet["prefill"]["kv_tokens"], fleet["decode"]["kv_tokens"]
    return (tokens // 2 // prefill, tokens // 2 // decode) if decode else (tokens // prefill, None)


def _figures(records: Sequence[RequestRecord]) -> dict[str, float]:
    sessions = summarise(records)["psserve"]["sessions"]
    return {
        "sessions_per_s": sessions["session_throughput"],
        "p50_session_s": sessions["median_session_latency_ms"] / 1000,
        "p95_session_s": sessions["p95_session_latency_ms"] / 1000,
    }


def _records(folder: Path, line: ResultLine) -> Path:
    return folder / f"{line['psserve']['run']}.jsonl"


def sessions_of(records: Iterable[RequestRecord], system_tokens: int) -> list[Session]:
    """In the order of their starts, without those that failed. `system_tokens`: how long their common beginning is."""
    made: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in records:
        made[record.session].append(record)
    whole = [each for each in made.values() if all(record.error is None for record in each)]
    whole.sort(key=lambda each: min(record.due_s for record in each))
    return [_session(each, system_tokens) for each in whole]


def _session(records: Sequence[RequestRecord], system_tokens: int) -> Session:
    steps: dict[int, list[RequestRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (record.step, record.call)):
        steps[record.step].append(record)
    before: list[RequestRecord] = []
    made = []
    for number in sorted(steps):
        made.append(_step(steps[number], before, system_tokens))
        before = steps[number]
    return Session(records[0].session, "system", system_tokens, tuple(made), min(record.due_s for record in records))


def _step(records: Sequence[RequestRecord], before: Sequence[RequestRecord], system_tokens: int) -> Step:
    """What a template adds between two turns counts as new; where it takes something away, one token is new."""
    context, due_s = system_tokens, records[0].due_s
    pause_s = 0.0
    if before:
        context = before[0].prompt_tokens + before[0].output_tokens
        pause_s = max(0.0, due_s - max(record.done_s for record in before))
    calls = tuple(Call(record.module, record.output_tokens) for record in records)
    return Step(max(1, records[0].prompt_tokens - context), calls, pause_s)
