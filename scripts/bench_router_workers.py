"""Whether a router's processes add up: `python scripts/bench_router_workers.py --json FILE`, some 2.5 minutes, as root.

One and two processes of psserve's router in turn, in front of the same canned workers. On two cores client and workers
need their part, so two processes can never have both: each process of either router gets a share of a core at most
(SCHED_DEADLINE, by chrt), small enough that cores are left over. What is compared is requests a second with all of
that share used. Beside it, the same without a share: what the machine gives, and who uses its cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import uvloop
from router_bench.measures import CONNECTIONS, throughput
from router_bench.routers import Cores, Router, Upstream, psserve_of, upstream

from psserve.bench import machine
from psserve.bench.systems.processes import cpu_seconds

PROCESSES = (1, 2)
PERIOD_NS = 10_000_000
TARGET = 1.8


@dataclass(frozen=True)
class Measured:
    """One measurement. Of CPU time, how many cores each used."""

    processes: int
    share: float | None
    """Of a core, that each process of the router had at most."""
    requests_per_s: float
    router_ms: float
    """CPU time of all processes of the router for one request."""
    by_process: list[float]
    """Cores that each process of the router used."""
    client: float
    workers: float


def main() -> int:
    options = arguments()
    described = machine.describe()
    with tempfile.TemporaryDirectory(prefix="psserve-router-") as directory:
        measured = measure(options, Path(directory))
    document = {"machine": described, "connections": CONNECTIONS, **figures(measured)}
    document["measured"] = [asdict(one) for one in measured]
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(lines(document)))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure one and two processes of the router.")
    parser.add_argument("--share", type=float, default=0.35, help="of a core, for each process (default: 0.35)")
    parser.add_argument("--pairs", type=int, default=6, help="with that share (default: 6)")
    parser.add_argument("--free", type=int, default=3, help="pairs without one (default: 3)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement (default: 6)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    return parser.parse_args()


def measure(options: argparse.Namespace, directory: Path) -> list[Measured]:
    """All measurements: pairs without a share first, then with it; whoever came second in a pair is first in the next.

    Raises RuntimeError where nobody may give shares.
    """
    measured = []
    with (
        upstream(0.0, Cores(None, None)) as workers,
        psserve_of(PROCESSES[0], workers, directory) as one,
        psserve_of(PROCESSES[1], workers, directory) as two,
    ):
        pair = (one, two)
        for turn in range(options.free + options.pairs):
            share = None if turn < options.free else options.share
            if turn == options.free:
                for router in pair:
                    limit(router, options.share)
            for router in pair:
                print(f"{router.name}, share {share}", file=sys.stderr, flush=True)
                measured.append(once(router, workers, share, options.seconds, turn))
            pair = (pair[1], pair[0])
    return measured


def once(router: Router, workers: Upstream, share: float | None, seconds: float, seed: int) -> Measured:
    """All of a router's time at work, for so many seconds and a second before."""
    members = serving(router)

    def used() -> list[float]:
        return [time.process_time(), cpu_seconds(workers.pid), *map(cpu_seconds, members)]

    start, before = time.perf_counter(), used()
    found = uvloop.run(throughput(router, seconds, seed))
    took = time.perf_counter() - start
    client, canned, *by_process = ((now - then) / took for now, then in zip(used(), before, strict=True))
    rate = found.requests / found.seconds
    router_ms = 1_000 * found.cpu_s / found.requests
    return Measured(len(members), share, rate, router_ms, by_process, client, canned)


def serving(router: Router) -> list[int]:
    """The processes that listen: of a router of several, not the one that has started them."""
    assert router.pid is not None
    return [child.pid for child in psutil.Process(router.pid).children()] or [router.pid]


def limit(router: Router, share: float) -> None:
    """Let each process of a router use this part of a core at most. Raises RuntimeError where that is not allowed."""
    runtime, period = f"{round(share * PERIOD_NS)}", f"{PERIOD_NS}"
    for pid in serving(router):
        times = ("--sched-runtime", runtime, "--sched-deadline", period, "--sched-period", period)
        done = subprocess.run(
            ["chrt", "--deadline", *times, "--pid", "0", f"{pid}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"nobody may give shares of cores here: {done.stderr.strip()}")


def figures(measured: Sequence[Measured]) -> dict[str, Any]:
    """The medians, with and without shares; of the ratios, the median over the pairs."""
    told: dict[str, Any] = {}
    for name, rows in (
        ("with_share", [one for one in measured if one.share is not None]),
        ("free", [one for one in measured if one.share is None]),
    ):
        by_count = {count: [one for one in rows if one.processes == count] for count in PROCESSES}
        ratios = [two.requests_per_s / one.requests_per_s for one, two in zip(by_count[1], by_count[2], strict=True)]
        told[name] = {
            "ratio": round(median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
            "requests_per_s": {
                count: round(median(one.requests_per_s for one in of)) for count, of in by_count.items()
            },
            "router_ms": {count: round(median(one.router_ms for one in of), 3) for count, of in by_count.items()},
        }
    return told


def lines(document: dict[str, Any]) -> list[str]:
    """For people."""
    text = []
    for one in document["measured"]:
        share = "any" if one["share"] is None else f"{one['share']:g}"
        cores = " ".join(f"{cores:.2f}" for cores in one["by_process"])
        text.append(
            f"{one['processes']} processes, share {share:>4}: {one['requests_per_s']:6.0f} requests/s,"
            f" {one['router_ms']:.2f} ms each; cores: router {cores}, client {one['client']:.2f},"
            f" workers {one['workers']:.2f}"
        )
    shared, free = document["with_share"], document["free"]
    verdict = "met" if shared["ratio"] >= TARGET else "MISSED"
    text.append(f"two for one, a share each: {shared['ratio']:g} times as many (>= {TARGET:g}: {verdict})")
    text.append(f"two for one, on all of this machine's cores: {free['ratio']:g} times as many")
    return text


if __name__ == "__main__":
    sys.exit(main())
