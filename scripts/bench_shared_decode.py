"""Four adapters on one decode server against the same four merged, each on a server of its own.

    python scripts/bench_shared_decode.py DIR --base model_zoo/base [--repeats 3] [--json FILE]

Both are served from one zoo of random adapters in DIR, one after the other: as they are, and with `own_server`. Each
repeat changes the order. Sessions grow with each turn, which asks the next module. Prints a table of the medians of the
repeats' ratios beside their targets. Takes a minute and a half for each repeat on two cores that nothing else uses.

Memory is what is free again once the decode servers are killed, of the memory of all of the fleet's processes. A page
that they share with no other server counts once, and one that prefill servers have too does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import psutil
from measuring import report
from measuring.adapters import make_zoo, names
from measuring.report import Figure

from psserve.bench import machine
from psserve.bench.systems.fleet import RunningFleet, launched
from psserve.bench.systems.processes import cpu_seconds, pss_bytes
from psserve.fleet.observe.overview import read_totals
from psserve.fleet.run.memory import family
from psserve.fleet.run.router_client import HttpClient

ADAPTERS = 4
KV_TOKENS = 16_384
"""Of each server: more than twice what sessions take that run at the same time."""
AT_ONCE = 8
TURNS = 8
OPENING_TOKENS = 256
TURN_TOKENS = 64
MAX_TOKENS = 16
TARGETS = {
    "memory_bytes": ("memory of decode servers", 0.3),
    "ready_s": ("time until ready", 0.7),
    "kv_tokens_sent": ("KV tokens sent", 0.35),
    "decode_cpu_s": ("CPU time of decode servers", 0.8),
    "load_s": ("time that the load takes", round(1 / 1.1, 2)),
}
"""Figure -> its name, and the most that one server may take of what four take."""


@dataclass(frozen=True)
class Figures:
    """One fleet under one load."""

    ready_s: float
    memory_bytes: int
    """Of its decode servers."""
    kv_tokens_sent: float
    decode_hits: float
    """Of the prompts' tokens, those that decode servers had."""
    decode_cpu_s: float
    load_s: float


def measure(zoo: Path, modules: list[str], config: Path, vocabulary: int, load: Load) -> Figures:
    """Launch, load, and ask everybody."""
    with launched(zoo, ["--transfer", "nixl", "--modules", ",".join(modules), "--config", str(config)]) as fleet:
        decode = [pid for name, pid in fleet.pids().items() if name.startswith("decode")]
        asyncio.run(
            Load(sessions=AT_ONCE, seed=-1).run(fleet.url, modules, vocabulary)
        )  # adapters are loaded, all warm
        before, totals = sum(map(cpu_seconds, decode)), counters(fleet.url)
        took = asyncio.run(load.run(fleet.url, modules, vocabulary))
        cpu = sum(map(cpu_seconds, decode)) - before
        found = {name: value - totals.get(name, 0.0) for name, value in counters(fleet.url).items()}
        memory = freed_bytes(fleet, decode)
    return Figures(
        ready_s=fleet.ready_s,
        memory_bytes=memory,
        kv_tokens_sent=found["psserve_kv_transferred_tokens_total"],
        decode_hits=found["psserve_decode_cached_tokens_total"] / found["psserve_prompt_tokens_total"],
        decode_cpu_s=cpu,
        load_s=took,
    )


def counters(url: str) -> dict[str, float]:
    """The router's counters, over all modules."""
    found: dict[str, float] = {}
    for (name, _), value in read_totals(HttpClient(url), 30).items():
        found[name] = found.get(name, 0.0) + value
    return found


def freed_bytes(fleet: RunningFleet, servers: list[int]) -> int:
    """The memory that is free again when these servers are killed; the fleet serves no more afterwards."""
    supervisor = psutil.Process(fleet.supervisor)
    supervisor.suspend()  # it would start them anew
    try:
        before = pss_bytes(fleet.supervisor)
        dying = [process for pid in servers for process in family(pid)]
        for process in dying:
            process.kill()
        while not all(map(is_over, dying)):
            time.sleep(0.05)
        return before - pss_bytes(fleet.supervisor)
    finally:
        supervisor.resume()


def is_over(process: psutil.Process) -> bool:
    """Whether a process has given its memory back."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@dataclass(frozen=True)
class Load:
    """Sessions that grow with each turn, AT_ONCE at a time."""

    sessions: int
    seed: int

    async def run(self, url: str, modules: list[str], vocabulary: int) -> float:
        """Seconds that all sessions took. Every answer must be one."""
        dice = random.Random(self.seed)
        length = OPENING_TOKENS + TURNS * TURN_TOKENS
        waiting = iter([[dice.randrange(3, vocabulary) for _ in range(length)] for _ in range(self.sessions)])
        first = itertools.count()

        async def keep_asking(session: aiohttp.ClientSession) -> None:
            for context in waiting:
                start = next(first)
                for turn in range(TURNS):
                    body: dict[str, Any] = {"model": modules[(start + turn) % len(modules)], "temperature": 0}
                    body["prompt"] = context[: OPENING_TOKENS + turn * TURN_TOKENS]
                    body |= {"max_tokens": MAX_TOKENS, "ignore_eos": True}
                    async with session.post(f"{url}/v1/completions", json=body) as response:
                        if response.status != 200:
                            raise SystemExit(await response.text())

        started = time.monotonic()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            await asyncio.gather(*(keep_asking(session) for _ in range(AT_ONCE)))
        return time.monotonic() - started


def fleet_toml(modules: list[str], own: bool) -> str:
    """Servers of one size, for all adapters or for each."""
    text = f"[prefill]\nkv_tokens = {KV_TOKENS}\n[decode]\nkv_tokens = {KV_TOKENS}\n"
    return text + "".join(f'[module."{name}"]\nown_server = true\n' for name in modules if own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=48)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--base", type=Path, help="checkpoint of the base, for a new zoo [a tiny random one]")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    on = machine.describe()
    zoo = make_zoo(options.directory.resolve(), ADAPTERS, options.base, options.rank)
    modules = names(ADAPTERS)
    found: dict[str, list[Figures]] = {"shared": [], "own": []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(options.repeats):
            for kind in sorted(found, reverse=repeat % 2 == 0):
                config = Path(folder) / f"{kind}.toml"
                config.write_text(fleet_toml(modules, own=kind == "own"))
                load = Load(options.sessions, repeat)
                found[kind].append(measure(zoo.path, modules, config, zoo.base.vocab_size, load))
                print(f"repeat {repeat + 1}, {kind}: {asdict(found[kind][-1])}", file=sys.stderr, flush=True)
    figures = [Figure(name, ratio(found, key), "of four servers'", most) for key, (name, most) in TARGETS.items()]
    print(report.heading(on), report.table(figures), sep="\n\n")
    if options.json:
        document = {"machine": on, "figures": [figure.as_json() for figure in figures]}
        document["options"] = {"repeats": options.repeats, "sessions": options.sessions, "rank": options.rank}
        document["medians"] = {kind: medians(runs) for kind, runs in found.items()}
        document["runs"] = {kind: [asdict(run) for run in runs] for kind, runs in found.items()}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def ratio(found: dict[str, list[Figures]], key: str) -> float:
    """The median of what one server takes of what four take, in the same repeat."""
    pairs = zip(found["shared"], found["own"], strict=True)
    return round(median(getattr(shared, key) / getattr(own, key) for shared, own in pairs), 3)


def medians(runs: list[Figures]) -> dict[str, float]:
    """Of each figure."""
    return {field.name: median(getattr(run, field.name) for run in runs) for field in fields(Figures)}


if __name__ == "__main__":
    main()
