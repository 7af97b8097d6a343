"""What the simulations of docs/simulator.md have in common: a system on published figures under one load."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from psserve.bench.simulator.asked import Basis, module_names
from psserve.bench.simulator.line import line_of
from psserve.bench.simulator.simulation import FleetLoad, simulate_cells
from psserve.bench.simulator.system import Setup, SystemName
from psserve.bench.workloads.choice import WorkloadChoice


def simulation_parser(description: str) -> argparse.ArgumentParser:
    """With `--json`, as `tell` takes it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON document to FILE too")
    return parser


def tell(document: dict[str, Any], path: Path | None) -> None:
    """Print the document, and write it to `path` if there is one."""
    text = json.dumps(document, indent=1)
    if path:
        path.write_text(text + "\n")
    print(text)


def published_setup(system: SystemName, modules: int, prefill: int, decode: int, basis: Basis) -> Setup:
    """So many servers of the model and the card that `basis` is of."""
    return Setup(
        system=system,
        modules=module_names(modules),
        prefill=prefill,
        decode=decode,
        costs=basis.costs,
        kv_tokens=basis.kv_tokens,
    )


def figures(setup: Setup, basis: Basis, choice: WorkloadChoice, concurrency: int, turnover: int) -> dict[str, Any]:
    """One run's. `turnover`: sessions for each that goes on at a time; the first time round does not count."""
    load = FleetLoad(workload=choice, sessions=turnover * concurrency, concurrency=concurrency, warmup=concurrency)
    outcome, described = simulate_cells(setup, load, cells=1)
    line = line_of(outcome, setup, load, workload=described, basis=basis.told, command="")
    sessions = line["psserve"]["sessions"]
    return {
        "concurrency": concurrency,
        "sessions_per_s": round(sessions["session_throughput"], 4),
        "p50_session_s": round(sessions["median_session_latency_ms"] / 1000, 2),
        "p95_session_s": round(sessions["p95_session_latency_ms"] / 1000, 2),
        "p95_ttft_s": round(line["p95_ttft_ms"] / 1000, 3),
        "hit_ratio": round(line["cache_report"]["cache_hit_rate_pct"] / 100, 4),
        "busy_share": line["psserve"]["counters"]["busy_share"],
    }
