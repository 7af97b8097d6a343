"""Hundreds of adapters on one decode server: how long a fleet of them takes to start, and how it answers.

    python scripts/bench_adapters.py DIR --adapters 1000 --requests 10000

Builds a zoo of random adapters of a tiny random base in DIR, which is kept for the next run (--base: another base).
Launches it, asks adapters that nobody has asked yet one at a time, and then many at once, the popular ones more often
(Zipf). Prints one JSON object: seconds, and how requests ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import aiohttp
from measuring.adapters import write_adapter

from psserve.fleet.observe.control import change_fleet
from psserve.fleet.run.protocol import ChangeCommand, ChangeRequest
from psserve.zoo import Module, Zoo
from psserve.zoo.disk.forms import FORMS, form_directory
from psserve.zoo.disk.manifest import MODULE_MANIFEST, ZOO_MANIFEST, write_manifest
from psserve.zoo.synthetic.zoo import build_zoo

ORIGINALS = 8
"""Adapters that are unlike each other."""
PROMPTS = 64
PROMPT_TOKENS = 48
MAX_TOKENS = 4
COLD = 40
"""Adapters that are asked for the first time, one after the other."""
ZIPF = 1.0


def names(count: int) -> list[str]:
    return [f"adapter-{number:04}" for number in range(count)]


def make_zoo(directory: Path, count: int, base: Path | None, rank: int) -> Zoo:
    """The zoo at `directory` with `count` adapters, those that are there already among them.

    A few are added as users add them, and the others are copies of these: each takes a second to check.
    """
    if not (directory / ZOO_MANIFEST).exists():
        if base is None:
            build_zoo(directory, modules=())
        else:
            Zoo.create(directory, base.resolve())
    zoo = Zoo.open(directory)
    there = {module.name for module in zoo.modules()}
    source = directory.with_name(f"{directory.name}-adapter")
    for number, name in enumerate(names(min(count, ORIGINALS))):
        if name not in there:
            write_adapter(source, zoo, number, rank)
            zoo.add(name, source, allow_naive=True, store="adapter")
    originals = [zoo.module(name) for name in names(min(count, ORIGINALS))]
    for number, name in enumerate(names(count)):
        if name not in there and number >= ORIGINALS:
            copy_module(zoo, originals[number % ORIGINALS], name)
    return Zoo.open(directory)


def copy_module(zoo: Zoo, module: Module, name: str) -> None:
    """Add the same adapter under another name."""
    shutil.copytree(form_directory(zoo.path, module.name, module.files).parent, zoo.path / FORMS / name)
    shutil.copytree(module.path, directory := module.path.with_name(name), ignore=lambda *_: [MODULE_MANIFEST])
    write_manifest(directory / MODULE_MANIFEST, module.manifest.model_copy(update={"name": name, "aliases": ()}))


@contextmanager
def launched(zoo: Path, *arguments: str) -> Iterator[tuple[str, float]]:
    """A fleet of the zoo: its URL, and how many seconds it took to be ready."""
    psserve = Path(sys.executable).with_name("psserve")
    command = [str(psserve), "launch", "--zoo", str(zoo), "--port", "0", *arguments]
    started = time.monotonic()
    fleet = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert fleet.stdout is not None
        ready = next((line for line in fleet.stdout if "ready at" in line), None)
        found = re.search(r"https?://\S+", ready or "")
        if found is None:
            raise SystemExit("the fleet did not start")
        yield found[0], time.monotonic() - started
    finally:
        fleet.send_signal(signal.SIGTERM)
        fleet.wait()


class Client:
    """Asks for short answers to a few prompts, and counts what comes."""

    def __init__(self, url: str, session: aiohttp.ClientSession, vocabulary: int) -> None:
        self._url, self._session = url, session
        dice = random.Random(0)
        self._prompts = [[dice.randrange(3, vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(PROMPTS)]
        self.outcomes: Counter[str] = Counter()

    async def ask(self, module: str, number: int) -> float:
        """Seconds that an answer took."""
        body = {"model": module, "prompt": self._prompts[number % PROMPTS], "max_tokens": MAX_TOKENS, "temperature": 0}
        started = time.monotonic()
        async with self._session.post(f"{self._url}/v1/completions", json=body) as response:
            answer = await response.json()
        took = time.monotonic() - started
        self.outcomes["200" if response.status == 200 else f"{response.status} {answer['error']['message']}"] += 1
        return took


async def measure(url: str, zoo: Zoo, modules: list[str], requests: int, clients: int) -> dict[str, Any]:
    """Cold answers, then a load."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        client = Client(url, session, zoo.base.vocab_size)
        cold = [await client.ask(module, number) for number, module in enumerate(modules[::-1][:COLD])]
        warm = [await client.ask(modules[-1], number) for number in range(COLD)]
        weights = [1 / (rank + 1) ** ZIPF for rank in range(len(modules))]
        asked = random.Random(1).choices(modules, weights, k=requests)
        work = iter(enumerate(asked))
        took: list[float] = []

        async def keep_asking() -> None:
            for number, module in work:
                took.append(await client.ask(module, number))

        started = time.monotonic()
        await asyncio.gather(*(keep_asking() for _ in range(clients)))
        seconds = time.monotonic() - started
    return {
        "cold_s": {"median": median(cold), "max": max(cold)},
        "warm_s": {"median": median(warm), "max": max(warm)},
        "requests": requests,
        "adapters_asked": len(set(asked)),
        "requests_per_s": requests / seconds,
        "request_s": {"median": median(took), "p99": quantiles(took, n=100)[98], "max": max(took)},
        "outcomes": dict(client.outcomes),
    }


def change_live(zoo: Zoo, rank: int) -> dict[str, float]:
    """Seconds that the running fleet takes to add an adapter, to replace it and to remove it."""
    source, name = zoo.path.with_name(f"{zoo.path.name}-live"), "live"
    took: dict[str, float] = {}
    commands: tuple[ChangeCommand, ...] = ("add", "update", "remove")
    for seed, command in enumerate(commands):
        if command != "remove":
            write_adapter(source, zoo, 10_000 + seed, rank)
            zoo.add(name, source, allow_naive=True, store="adapter", replace=command == "update")
        started = time.monotonic()
        change_fleet(zoo.path, ChangeRequest(command=command, module=name), lambda text: None)
        took[command] = time.monotonic() - started
    zoo.remove(name)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--base", type=Path, help="checkpoint of the base, for a new zoo")
    options = parser.parse_args()
    modules = names(options.adapters)
    zoo = make_zoo(options.directory.resolve(), options.adapters, options.base, options.rank)
    with launched(zoo.path, "--modules", ",".join(modules)) as (url, ready_s):
        found = asyncio.run(measure(url, zoo, modules, options.requests, options.clients))
        found["live_s"] = change_live(zoo, options.rank)
    print(json.dumps({"adapters": options.adapters, "ready_s": ready_s, **found}, indent=1))


if __name__ == "__main__":
    main()
