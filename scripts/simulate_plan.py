"""What a million sessions cost with 1, 4, 16, 64 modules: `python scripts/simulate_plan.py [--json FILE] [--price 2]`.

Each module has one decode GPU. Beside them stand as many prefill GPUs (the paper's set-up), half or a quarter as many
where they are shared, or none where every GPU does both. Of each arrangement the load with the most sessions a second
counts whose sessions stay within the objective. Simulated on published figures: docs/simulator.md shows the result.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from measuring.simulated import figures, published_setup, simulation_parser, tell

from psserve.bench.simulator.asked import Basis, published
from psserve.bench.simulator.system import Setup, SystemName
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.bench.workloads.workload import Length

MODEL, HARDWARE = "Llama-3.1-8B", "H100"
MODULES = (1, 4, 16, 64)
PER_MODULE = (8, 16, 24, 32)
"""Sessions at a time for each module."""
TURNOVER = 3
CHANGES: dict[str, Any] = {"turns": Length(24, 24)}
"""To the preset `react`: eight turns of thought, action and observation."""
OBJECTIVE_S = 120.0
"""95% of the sessions, tools included."""
TOLD = ("concurrency", "sessions_per_s", "p95_session_s", "hit_ratio")
MILLION = 1_000_000
PRICE = 2.0
"""Dollars for a GPU and hour: a figure to be replaced by one's own."""


def main() -> int:
    parser = simulation_parser("Simulate what sessions cost past one machine.")
    parser.add_argument("--price", type=float, default=PRICE, help="dollars for a GPU and hour")
    parser.add_argument("--modules", default=",".join(map(str, MODULES)), help="numbers of modules")
    options = parser.parse_args()
    basis = published(MODEL, HARDWARE, None, None, None)
    rows = []
    for count in map(int, options.modules.split(",")):
        for setup in arrangements(count, basis):
            rows.append(row(setup, basis, options.price))
            print(rows[-1], file=sys.stderr, flush=True)
    document = {"simulated": True, "model": MODEL, "hardware": HARDWARE, "workload": "react, 24 calls"}
    document |= {"objective_s": OBJECTIVE_S, "price": options.price, "rows": rows}
    tell(document, options.json)
    return 0


def arrangements(modules: int, basis: Basis) -> Iterator[Setup]:
    """What could be bought for so many modules."""
    kinds: list[tuple[SystemName, int, int]] = [("disaggregated", modules, modules), ("colocated", modules, 0)]
    kinds += [("shared", prefill, modules) for prefill in sorted({modules, -(-modules // 2), -(-modules // 4)})]
    for system, prefill, decode in kinds:
        yield published_setup(system, modules, prefill, decode, basis)


def row(setup: Setup, basis: Basis, price: float) -> dict[str, Any]:
    """The best load of one arrangement, and what a million sessions cost at it."""
    choice = WorkloadChoice(preset="react", changes=CHANGES)
    runs = [figures(setup, basis, choice, count * len(setup.modules), TURNOVER) for count in PER_MODULE]
    good = [{name: each[name] for name in TOLD} for each in runs if each["p95_session_s"] <= OBJECTIVE_S]
    best = max(good, key=lambda each: each["sessions_per_s"], default=None)
    made: dict[str, Any] = {"modules": len(setup.modules), "system": setup.system}
    made |= {"prefill": setup.prefill, "decode": setup.decode, "best": best}
    if best is not None:
        hours = MILLION / best["sessions_per_s"] / 3600 * setup.servers
        made |= {"gpu_hours_per_million": round(hours), "dollars_per_million": round(hours * price)}
    return made


if __name__ == "__main__":
    sys.exit(main())
