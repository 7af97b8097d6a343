"""The paper's own set-up, simulated: `python scripts/simulate_paper.py [--json FILE] [--png FILE]`.

Eight A100s, 4 for prefill and 4 for decode, Llama-3.1-8B, four modules. Against it the paper's baseline, each module on
a pair of its own. Both are loaded with more and more sessions at a time. docs/simulator.md shows the result beside the
paper's figures and says where they differ. No clock: the same command writes the same bytes on any machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measuring.simulated import figures, published_setup, simulation_parser, tell

from psserve.bench.simulator.asked import published
from psserve.bench.simulator.system import SystemName
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.bench.workloads.workload import Preset

MODEL, HARDWARE, MODULES, PREFILL, DECODE = "Llama-3.1-8B", "A100-80G", 4, 4, 4
SYSTEMS: tuple[SystemName, ...] = ("shared", "disaggregated")
SESSIONS_AT_A_TIME = (10, 20, 30, 40, 50, 60, 80, 100, 120, 140, 160)
LOADS_HELP = "other sessions at a time, as in 10,40,80"
TURNOVER = 4
"""Sessions of a run for each that goes on at a time; the first time round does not count."""
WORKLOADS: tuple[Preset, ...] = ("four-agents-reflexion", "four-agents-react")
PAPER: dict[Preset, dict[str, float]] = {
    "four-agents-reflexion": {"p95_session": 4.5, "throughput": 3.9, "shared_hit_ratio": 0.89, "baseline_falls_at": 40},
    "four-agents-react": {"p95_session": 3.9, "throughput": 3.6, "shared_hit_ratio": 0.89, "baseline_falls_at": 40},
}
FALLEN = 0.9
"""The baseline's hit ratio has fallen when it is below this part of what it is at the lowest load."""


def main() -> int:
    parser = simulation_parser("Simulate the paper's set-up.")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the curves into FILE")
    parser.add_argument("--loads", type=numbers, default=SESSIONS_AT_A_TIME, help=LOADS_HELP)
    options = parser.parse_args()
    document = paper_document(lambda name: workload(name, options.loads))
    tell(document, options.json)
    if options.png:
        draw(document["workloads"], options.png)
    return 0


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def paper_document(workload: Callable[[Preset], dict[str, Any]]) -> dict[str, Any]:
    """What is simulated of each of the paper's workloads, and on what."""
    document = {"simulated": True, "model": MODEL, "hardware": HARDWARE, "prefill": PREFILL, "decode": DECODE}
    return document | {"modules": MODULES, "workloads": {name: workload(name) for name in WORKLOADS}}


def workload(name: Preset, loads: Sequence[int]) -> dict[str, Any]:
    """Both systems under every load, and what the paper says of the same."""
    curves = {system: [point(system, name, load) for load in loads] for system in SYSTEMS}
    return {"paper": PAPER[name], "simulated": compared(curves), "curves": curves}


def point(system: SystemName, name: Preset, concurrency: int) -> dict[str, Any]:
    """One run; its figures go to stderr as they come."""
    basis = published(MODEL, HARDWARE, None, None, None)
    choice = WorkloadChoice(preset=name)
    made = figures(published_setup(system, MODULES, PREFILL, DECODE, basis), basis, choice, concurrency, TURNOVER)
    print(f"{name:21} {system:14} {made}", file=sys.stderr, flush=True)
    return made


def compared(curves: dict[SystemName, list[dict[str, Any]]]) -> dict[str, Any]:
    """Largest ratios over the loads (ours better: above 1), and the load at which the baseline's hits have fallen."""
    pairs = list(zip(curves["shared"], curves["disaggregated"], strict=True))
    hits = [theirs["hit_ratio"] for _, theirs in pairs]
    fallen = [theirs["concurrency"] for _, theirs in pairs if theirs["hit_ratio"] < FALLEN * hits[0]]
    throughput = [(ours["sessions_per_s"] / theirs["sessions_per_s"], ours["concurrency"]) for ours, theirs in pairs]
    latency = [(theirs["p95_session_s"] / ours["p95_session_s"], ours["concurrency"]) for ours, theirs in pairs]
    best = {system: max(point["sessions_per_s"] for point in points) for system, points in curves.items()}
    return {
        "p95_session": round(max(latency)[0], 2),
        "p95_session_at": max(latency)[1],
        "throughput": round(max(throughput)[0], 2),
        "throughput_at": max(throughput)[1],
        "peak_throughput": round(best["shared"] / best["disaggregated"], 2),
        "shared_hit_ratio": [ours["hit_ratio"] for ours, _ in pairs],
        "baseline_hit_ratio": hits,
        "baseline_falls_at": fallen[0] if fallen else None,
    }


PANELS = (
    ("hit_ratio", "prefill hit ratio", False),
    ("sessions_per_s", "sessions a second", False),
    ("p95_session_s", "session latency, p95 (s)", True),
)


def draw(workloads: dict[str, Any], path: Path) -> None:
    """A row a workload: hit ratio, throughput and latency against sessions at a time."""
    from matplotlib.figure import Figure

    from psserve.bench.report.drawing import SYSTEM_COLOURS

    figure = Figure(figsize=(11, 3.1 * len(workloads)), layout="constrained")
    rows = figure.subplots(len(workloads), len(PANELS), squeeze=False)
    for row, (name, told) in zip(rows, workloads.items(), strict=True):
        for axes, (key, title, logarithmic) in zip(row, PANELS, strict=True):
            for system, points in told["curves"].items():
                at, values = [p["concurrency"] for p in points], [p[key] for p in points]
                axes.plot(at, values, marker="o", markersize=4, color=SYSTEM_COLOURS[system].light, label=system)
            axes.set(title=f"{name.removeprefix('four-agents-')}: {title}", xlabel="sessions at a time")
            axes.set(**({"yscale": "log"} if logarithmic else {"ylim": (0, None)}))
            axes.grid(alpha=0.3)
    rows[0][0].legend()
    figure.suptitle("Simulated, not measured: 4 + 4 A100, Llama-3.1-8B, four modules")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
