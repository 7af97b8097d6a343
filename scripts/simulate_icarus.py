"""What it would save if no answer were read again by the base: `python scripts/simulate_icarus.py [--json FILE]`.

The paper's set-up (simulate_paper.py), as psserve serves it and by ICaRus' rule, where decode servers write the base's
KV of answers. For that a base runs beside each adapter in every step: once taken as free (weights and KV are read once
for both), once as a second sequence's arithmetic. No clock: the same command writes the same bytes on any machine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from measuring.simulated import figures, published_setup, simulation_parser, tell
from simulate_paper import (
    DECODE,
    HARDWARE,
    LOADS_HELP,
    MODEL,
    MODULES,
    PREFILL,
    TURNOVER,
    numbers,
    paper_document,
)

from psserve.bench.simulator.asked import Basis, published
from psserve.bench.simulator.system import Setup
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.bench.workloads.workload import Preset

SESSIONS_AT_A_TIME = (20, 40, 60, 80, 100)
WAYS = {"psserve": None, "icarus": 1, "icarus, base counted": 2}
"""Way -> sequences that a step computes for each answer, where the base writes the answers' KV."""


def main() -> int:
    parser = simulation_parser("Simulate answers that the base need not read again.")
    parser.add_argument("--loads", type=numbers, default=SESSIONS_AT_A_TIME, help=LOADS_HELP)
    options = parser.parse_args()
    tell(paper_document(lambda name: workload(name, options.loads)), options.json)
    return 0


def workload(name: Preset, loads: Sequence[int]) -> dict[str, Any]:
    """All ways under every load."""
    basis = published(MODEL, HARDWARE, None, None, None)
    return {way: [point(way, setup(way, basis), basis, name, load) for load in loads] for way in WAYS}


def setup(way: str, basis: Basis) -> Setup:
    """The paper's servers, with one base for all."""
    made, sequences = published_setup("shared", MODULES, PREFILL, DECODE, basis), WAYS[way]
    if sequences is None:
        return made
    costs = made.costs
    decode = replace(costs.decode, sequence_s=sequences * costs.decode.sequence_s)
    return replace(made, answers_by_base=True, costs=replace(costs, decode=decode))


def point(way: str, made: Setup, basis: Basis, name: Preset, concurrency: int) -> dict[str, Any]:
    """One run; its figures go to stderr as they come."""
    found = figures(made, basis, WorkloadChoice(preset=name), concurrency, TURNOVER)
    print(f"{name:21} {way:20} {found}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
