"""What the load generator of `psserve bench` can do: `python scripts/bench_client.py --json FILE`.

Many streams at a time from one core, against the canned worker of bench_router.py on another one: whether all answers
came whole, whether the client kept the worker's pace, and its own CPU time per request and per chunk.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import uvloop
from measuring import report
from measuring.report import Figure
from router_bench.routers import Cores, upstream

from psserve.bench import machine
from psserve.bench.load.options import LoadOptions
from psserve.bench.load.run import run_load
from psserve.bench.metrics import summarise
from psserve.bench.record import RequestRecord
from psserve.bench.session import Call, Session, Step
from psserve.zoo.synthetic.tokenizer import write_tokenizer

MODULE = "math"
WORDS = 64


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the load generator against a canned worker.")
    parser.add_argument("--streams", type=int, default=2000, help="at a time")
    parser.add_argument("--tokens", type=int, default=100, help="of each answer, one a chunk")
    parser.add_argument("--tokens-per-s", type=float, default=10.0, help="of each stream")
    parser.add_argument("--rounds", type=int, default=2, help="answers of each stream, one after the other")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    found = machine.describe()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[:1])
    others = Cores(None, cores[-1])
    with upstream(1 / options.tokens_per_s, others) as workers, tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), 4096)
        url = f"http://127.0.0.1:{workers.decode}"
        few = uvloop.run(measure(url, Path(folder), options.streams, 2, options.rounds))
        many = uvloop.run(measure(url, Path(folder), options.streams, options.tokens, options.rounds))
    figures = figures_of(few, many, options)
    print(report.heading(found), report.table(figures), sep="\n\n")
    document = {"machine": found, "options": vars(options) | {"json": None}, "runs": {"few": few, "many": many}}
    document["figures"] = [figure.as_json() for figure in figures]
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if many["completed"] == options.streams * options.rounds else 1


async def measure(url: str, tokenizer: Path, streams: int, tokens: int, rounds: int) -> dict[str, Any]:
    """All streams begin at once and answer `rounds` times."""
    step = Step(WORDS, (Call(MODULE, tokens),))
    sessions = [Session(f"s{n}", "", 0, (step,) * rounds) for n in range(streams)]
    cpu, wall = time.process_time(), time.perf_counter()
    records = await run_load(sessions, {MODULE: url}, LoadOptions(concurrency=streams, tokenizer=tokenizer))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    summary = summarise(records)
    return {
        "completed": summary["completed"],
        "errors": summary["psserve"]["errors"],
        "chunks": sum(len(record.chunk_s) for record in records),
        "most_at_once": most_at_once(records),
        "seconds": wall,
        "cpu_s": cpu,
        "late_ms": summary["psserve"]["client"]["p99_client_lag_ms"],
        "tpot_ms": {name: summary[f"{name}_tpot_ms"] for name in ("median", "p99")},
    }


def most_at_once(records: Sequence[RequestRecord]) -> int:
    """Streams that were open at one moment."""
    events = sorted([(record.sent_s, 1) for record in records] + [(record.done_s, -1) for record in records])
    return max(accumulate(change for _, change in events))


def figures_of(few: dict[str, Any], many: dict[str, Any], options: argparse.Namespace) -> list[Figure]:
    """The client's cost per chunk from what more chunks cost, and per request from what is left."""
    per_chunk = (many["cpu_s"] - few["cpu_s"]) / max(1, many["chunks"] - few["chunks"])
    per_request = (few["cpu_s"] - few["chunks"] * per_chunk) / max(1, few["completed"])
    pace = 1000 / options.tokens_per_s
    return [
        Figure("streams at a time", many["most_at_once"], ""),
        Figure("answers not whole", options.streams * options.rounds - many["completed"], "", 0),
        Figure("chunks a second", round(many["chunks"] / many["seconds"]), ""),
        Figure("client's CPU", round(100 * many["cpu_s"] / many["seconds"], 1), "% of a core", 100),
        Figure("CPU per request", round(1e6 * per_request), "us"),
        Figure("CPU per chunk", round(1e6 * per_chunk, 1), "us"),
        Figure("median time per token over the worker's pace", round(many["tpot_ms"]["median"] - pace, 2), "ms"),
    ]


if __name__ == "__main__":
    sys.exit(main())
