"""Four adapters on one decode server against the same four merged, each on a server of its own.

    python scripts/bench_shared_decode.py DIR [--repeats 3] [--base model_zoo/base]

Both are served from one zoo of random adapters in DIR, in turns: as they are, and with `own_server`. Sessions grow with
each turn, which asks the next module. Prints one JSON object: the medians of both, and of the ratios of each pair.
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

import aiohttp
from bench_adapters import launched, make_zoo, names

from psserve.fleet.observe.overview import read_totals, survey
from psserve.fleet.run.memory import family
from psserve.fleet.run.router_client import HttpClient

ADAPTERS = 4
SESSIONS = 24
AT_ONCE = 8
TURNS = 8
OPENING_TOKENS = 256
TURN_TOKENS = 64
MAX_TOKENS = 16


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
    requests_per_s: float


def measure(zoo: Path, modules: list[str], config: Path, vocabulary: int, seed: int) -> Figures:
    """Launch, load, and ask everybody."""
    with launched(zoo, "--modules", ",".join(modules), "--config", str(config)) as (url, ready_s):
        servers = [server for server in survey(zoo).servers if server.role == "decode"]
        before, totals = cpu_s([server.pid for server in servers]), counters(url)
        took = asyncio.run(ask_all(url, modules, vocabulary, seed))
        cpu = cpu_s([server.pid for server in servers]) - before
        found = {name: value - totals.get(name, 0.0) for name, value in counters(url).items()}
        servers = [server for server in survey(zoo).servers if server.role == "decode"]
    return Figures(
        ready_s=ready_s,
        memory_bytes=sum(server.memory_bytes or 0 for server in servers),
        kv_tokens_sent=found["psserve_kv_transferred_tokens_total"],
        decode_hits=found["psserve_decode_cached_tokens_total"] / found["psserve_prompt_tokens_total"],
        decode_cpu_s=cpu,
        requests_per_s=SESSIONS * TURNS / took,
    )


def cpu_s(pids: list[int | None]) -> float:
    """Seconds that these processes and their children have computed."""
    times = [process.cpu_times() for pid in pids if pid is not None for process in family(pid)]
    return sum(one.user + one.system for one in times)


def counters(url: str) -> dict[str, float]:
    """The router's counters, over all modules."""
    found: dict[str, float] = {}
    for (name, _), value in read_totals(HttpClient(url), 30).items():
        found[name] = found.get(name, 0.0) + value
    return found


async def ask_all(url: str, modules: list[str], vocabulary: int, seed: int) -> float:
    """Seconds that all sessions took. Every answer must be one."""
    dice = random.Random(seed)
    waiting = iter([[dice.randrange(3, vocabulary) for _ in range(OPENING_TOKENS)] for _ in range(SESSIONS)])
    first = itertools.count()

    async def keep_asking(session: aiohttp.ClientSession) -> None:
        for context in waiting:
            start = next(first)
            for turn in range(TURNS):
                module = modules[(start + turn) % len(modules)]
                body = {"model": module, "prompt": context, "max_tokens": MAX_TOKENS, "temperature": 0}
                async with session.post(f"{url}/v1/completions", json=body | {"ignore_eos": True}) as response:
                    if response.status != 200:
                        raise SystemExit(await response.text())
                context = context + [dice.randrange(3, vocabulary) for _ in range(TURN_TOKENS)]

    started = time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        await asyncio.gather(*(keep_asking(session) for _ in range(AT_ONCE)))
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--base", type=Path, help="checkpoint of the base, for a new zoo")
    options = parser.parse_args()
    zoo = make_zoo(options.directory.resolve(), ADAPTERS, options.base, options.rank)
    modules = names(ADAPTERS)
    kinds = {"shared": "", "own": "".join(f'[module."{name}"]\nown_server = true\n' for name in modules)}
    found: dict[str, list[Figures]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for repeat, kind in itertools.product(range(options.repeats), kinds):
            config = Path(folder) / f"{kind}.toml"
            config.write_text(kinds[kind])
            found[kind].append(measure(zoo.path, modules, config, zoo.base.vocab_size, repeat))
            print(f"{kind}: {asdict(found[kind][-1])}", file=sys.stderr)
    pairs = list(zip(found["shared"], found["own"], strict=True))
    print(json.dumps({each.name: summary(each.name, pairs) for each in fields(Figures)}, indent=1))


def summary(name: str, pairs: list[tuple[Figures, Figures]]) -> dict[str, float]:
    """Medians of one figure."""
    values = [(getattr(shared, name), getattr(own, name)) for shared, own in pairs]
    return {
        "shared": median(shared for shared, _ in values),
        "own": median(own for _, own in values),
        "ratio": median(shared / own for shared, own in values),
    }


if __name__ == "__main__":
    main()
