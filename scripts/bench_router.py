"""What the router costs: `python scripts/bench_router.py [--peer NAME]... [--json FILE]`, some 9 minutes.

psserve's router and SGLang's two, in turn, in front of the same canned workers, each on a core of its own; client and
workers have the other one. Prints tables, and the figures beside their targets; docs/router-speed.md tells the method.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from router_bench import report
from router_bench.client import LONG_WORDS, SHORT_WORDS
from router_bench.measures import CONNECTIONS, RATE, STREAMS, Load, Streams, Throughput, latency, streams, throughput
from router_bench.routers import PEERS, Cores, missing_peer, peer_version, router, two_cores, upstream

from psserve.bench import machine

LOADS = {
    "small, whole": Load(SHORT_WORDS, stream=False),
    "small, first byte of a stream": Load(SHORT_WORDS, stream=True),
    "long, first byte of a stream": Load(LONG_WORDS, stream=True),
}
STREAM_INTERVAL_S = 0.2
PEER_PATH = Path(tempfile.gettempdir()) / "psserve-peer"


def main() -> int:
    options = arguments()
    described = machine.describe()  # before this process is held to one of the cores
    cores = two_cores()
    if cores.others is not None:
        os.sched_setaffinity(0, {cores.others})
    names = ["direct", "psserve"]
    for peer in [] if options.peer == ["none"] else options.peer or PEERS:
        if why := missing_peer(peer, options.peer_path):
            note(why)
        else:
            names.append(peer)
    with tempfile.TemporaryDirectory(prefix="psserve-router-") as directory:
        document = {"machine": described} | measure(names, options, cores, Path(directory))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join([*report.lines(document), "", *report.verdicts(document)]))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the router beside SGLang's.")
    parser.add_argument("--peer", action="append", choices=(*PEERS, "none"), help="beside which (default: both)")
    parser.add_argument("--peer-path", type=Path, default=PEER_PATH, metavar="DIR", help="where sglang_router is")
    parser.add_argument("--rounds", type=int, default=2, help="turns of every router (default: 2)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    return parser.parse_args()


def measure(names: Sequence[str], options: argparse.Namespace, cores: Cores, directory: Path) -> dict[str, Any]:
    """All figures as JSON."""
    times: dict[str, dict[str, list[float]]] = {load: defaultdict(list) for load in LOADS}
    rounds: dict[str, list[Throughput]] = defaultdict(list)
    held: dict[str, Streams] = {}
    with upstream(0.0, cores) as workers:
        for turn in range(options.rounds):
            for name in names:
                note(f"round {turn + 1}: {name}")
                with router(name, workers, cores, directory, options.peer_path) as running:
                    for number, (load, shape) in enumerate(LOADS.items()):
                        seed = 10 * turn + number
                        times[load][name] += uvloop.run(latency(running, shape, options.seconds, seed))
                    rounds[name].append(uvloop.run(throughput(running, options.seconds, turn)))
    with upstream(STREAM_INTERVAL_S, cores) as workers:
        for name in names[1:]:
            note(f"{STREAMS} streams: {name}")
            with router(name, workers, cores, directory, options.peer_path) as running:
                held[name] = asyncio.run(streams(running, STREAM_INTERVAL_S, 0))
    return {
        "peer": peer_version(options.peer_path),
        "rate": RATE,
        "connections": CONNECTIONS,
        "streams_at_once": STREAMS,
        "latency": {load: report.latency_figures(found) for load, found in times.items()},
        "throughput": {name: report.throughput_figures(found) for name, found in rounds.items()},
        "streams": {name: found.as_json() for name, found in held.items()},
    }


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
