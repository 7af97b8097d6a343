"""On what a system's CPU time went: reading prompts, answering, or routing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from psserve.bench.result import read_results

KINDS = {"prefill": "prefill", "decode": "decode", "server": "prefill_and_decode", "router": "front", "front": "front"}
"""By the first word of a process's name."""


def cpu_split(results: Path) -> dict[str, dict[str, float]]:
    """System -> kind of process -> CPU seconds of a run, the mean over its runs."""
    runs: dict[str, list[dict[str, float]]] = {}
    for line in read_results(results):
        ours = line["psserve"]
        if ours["counters"] is not None and not ours["partial"]:
            runs.setdefault(ours["system"], []).append(by_kind(ours["counters"]["cpu_s"]))
    return {
        system: {kind: round(fmean(run.get(kind, 0.0) for run in of), 2) for kind in sorted({k for r in of for k in r})}
        for system, of in runs.items()
    }


def by_kind(cpu_s: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds by kind of process, from those by process name (`prefill-0`, `decode-math-0`, `front`)."""
    kinds: dict[str, float] = {}
    for name, seconds in cpu_s.items():
        kind = KINDS[name.partition("-")[0]]
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    return kinds
