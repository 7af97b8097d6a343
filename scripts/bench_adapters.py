"""Hundreds of adapters on one decode server: their start, cold and popular ones, changes under load, and fairness.

    python scripts/bench_adapters.py DIR --base model_zoo/base [--part zipf] [--json FILE]

Builds zoos of random adapters in DIR, which are kept for the next run, and prints a table of figures beside their
targets. Parts, all of them without --part, and what they take on two cores that nothing else uses:

    launch    how long fleets of 4 and of 1,000 adapters take to be ready, in turns           2 minutes
    zipf      1,000 adapters: first answers of some, then 10,000 requests, popular ones more   7 minutes
    replace   one of 12 adapters is replaced 200 times while 12 clients ask; what is left      5 minutes
    fair      12 adapters in a batch of 4, asked at random by 12 clients: who waits            1 minute
    leave     clients go, prompts are refused, the adapter is replaced: when the old one goes  1 minute
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import psutil
from measuring import report
from measuring.adapters import add_adapter, make_zoo, names
from measuring.report import Figure, percentile
from soaking.leaks import await_idle

from psserve.bench import machine
from psserve.bench.systems.fleet import RunningFleet, launched
from psserve.bench.systems.processes import pss_bytes
from psserve.fleet.observe.control import change_fleet
from psserve.fleet.run.memory import family
from psserve.fleet.run.protocol import ChangeRequest
from psserve.fleet.run.router_client import HttpClient
from psserve.zoo import Zoo

FEW = 12
PROMPTS = 64
PROMPT_TOKENS = 48
MAX_TOKENS = 4
COLD = 40
"""Adapters that are asked for the first time, one after the other."""
ZIPF = 1.0
IN_BATCH = 4
LEAVING = 8
LEAVING_TOKENS = 400
"""Clients that ask for long answers, and go in the midst of them."""
REFUSED_TOKENS = 100_000
WARM_REPLACEMENTS = 0.1
"""Part of the replacements after which memory should grow no more."""
LEFT_WITHIN_S = 60.0
SERVER = "decode-adapters-0"


class Clients:
    """Ask for short answers to a few prompts, and count what comes."""

    def __init__(self, url: str, session: aiohttp.ClientSession, vocabulary: int) -> None:
        self._url, self._session = url, session
        dice = random.Random(0)
        self._prompts = [[dice.randrange(3, vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(PROMPTS)]
        self.outcomes: Counter[str] = Counter()
        self.took: list[float] = []

    async def ask(self, module: str, number: int) -> float:
        """Seconds that an answer took."""
        body = {"model": module, "prompt": self._prompts[number % PROMPTS], "max_tokens": MAX_TOKENS, "temperature": 0}
        started = time.monotonic()
        async with self._session.post(f"{self._url}/v1/completions", json=body) as response:
            answer = await response.json()
        took = time.monotonic() - started
        self.outcomes["200" if response.status == 200 else f"{response.status} {answer['error']['message']}"] += 1
        return took

    async def leave(self, module: str, number: int, after_s: float) -> None:
        """Ask for a long answer, and go."""
        body = {"model": module, "prompt": self._prompts[number % PROMPTS], "ignore_eos": True}
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(after_s),
                self._session.post(f"{self._url}/v1/completions", json=body | {"max_tokens": LEAVING_TOKENS}) as answer,
            ):
                await answer.read()
                raise SystemExit("an answer came before its client could go: raise LEAVING_TOKENS")

    async def ask_all(self, modules: Iterable[str], clients: int) -> None:
        """Have so many clients ask, one request after the other each, until `modules` ends."""
        work = enumerate(modules)

        async def keep_asking() -> None:
            for number, module in work:
                self.took.append(await self.ask(module, number))
                if len(self.took) % 1000 == 0:
                    note(f"{len(self.took)} requests")

        await asyncio.gather(*(keep_asking() for _ in range(clients)))

    @property
    def failed(self) -> int:
        return self.outcomes.total() - self.outcomes["200"]


def session() -> aiohttp.ClientSession:
    """A session that never gives up a request."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), connector=aiohttp.TCPConnector(limit=0))


def note(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Bench:
    """The parts. Each notes its figures in `figures`, and more in `details`."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self.figures: list[Figure] = []
        self.details: dict[str, Any] = {}

    def _zoo(self, count: int) -> Zoo:
        note(f"a zoo of {count} adapters")
        options = self._options
        return make_zoo(options.directory.resolve() / str(count), count, options.base, options.rank)

    def _arguments(self, modules: list[str], toml: str = "") -> list[str]:
        config = self._folder / "fleet.toml"
        config.write_text(toml)
        return ["--transfer", "nixl", "--modules", ",".join(modules), "--config", str(config)]

    # --- parts

    def launch(self) -> None:
        """Ready times of a few and of many, in turns."""
        counts = (IN_BATCH, self._options.adapters)
        ready: dict[int, list[float]] = {count: [] for count in counts}
        zoos = {count: self._zoo(count) for count in counts}
        for repeat in range(self._options.repeats):
            for count in counts if repeat % 2 else reversed(counts):
                with launched(zoos[count].path, self._arguments(names(count))) as fleet:
                    ready[count].append(fleet.ready_s)
                note(f"{count} adapters: ready after {fleet.ready_s:.1f} s")
        few, many = (median(ready[count]) for count in counts)
        self.details["launch"] = ready
        self.figures.append(Figure(f"ready, {counts[1]} adapters", round(many, 1), "s"))
        self.figures.append(Figure(f"... of what {counts[0]} take", round(many / few, 2), "", 1.2))

    def zipf(self) -> None:
        """Cold answers, then a load."""
        modules, options = names(self._options.adapters), self._options
        zoo = self._zoo(options.adapters)
        weights = [1 / (rank + 1) ** ZIPF for rank in range(len(modules))]
        asked = random.Random(1).choices(modules, weights, k=options.requests)

        async def measure(fleet: RunningFleet) -> tuple[list[float], float, Clients]:
            async with session() as http:
                clients = Clients(fleet.url, http, zoo.base.vocab_size)
                cold = [await clients.ask(module, number) for number, module in enumerate(modules[::-1][:COLD])]
                note(f"cold answers: {median(cold):.2f} s, at most {max(cold):.2f} s")
                started = time.monotonic()
                await clients.ask_all(asked, options.zipf_clients)
                return cold, time.monotonic() - started, clients

        with launched(zoo.path, self._arguments(modules)) as fleet:
            cold, seconds, clients = asyncio.run(measure(fleet))
        self.details["zipf"] = {
            "cold_s": {"median": median(cold), "max": max(cold)},
            "clients": options.zipf_clients,
            "requests": len(asked),
            "adapters_asked": len(set(asked)),
            "request_s": summary(clients.took),
            "outcomes": dict(clients.outcomes),
        }
        self.figures += [
            Figure("first answer of a cold adapter, slowest", round(max(cold), 2), "s", 1.0),
            Figure(f"failed of {len(asked)} requests", clients.failed, "", 0),
            Figure("requests a second", round(len(asked) / seconds, 1), ""),
        ]

    def replace(self) -> None:
        """Replacements under load. What must not be left is looked at in the end."""
        zoo, modules, count = self._zoo(FEW), names(FEW), self._options.replacements
        changed = modules[0]
        over = False
        took: list[float] = []
        memory: list[int] = []

        def asked() -> Iterable[str]:
            dice = random.Random(2)
            while not over:
                yield dice.choice(modules)

        def change(fleet: RunningFleet, number: int) -> None:
            add_adapter(zoo, changed, 10_000 + number, self._options.rank, replace=True)
            started = time.monotonic()
            change_fleet(zoo.path, ChangeRequest(command="update", module=changed), lambda text: None)
            took.append(time.monotonic() - started)
            memory.append(pss_bytes(fleet.pids()[SERVER]))
            if number % 20 == 19:
                note(f"{number + 1} replacements: {median(took):.2f} s each, server {memory[-1] >> 20} MiB")

        async def measure(fleet: RunningFleet) -> tuple[Clients, int, dict[str, float]]:
            nonlocal over
            async with session() as http:
                clients = Clients(fleet.url, http, zoo.base.vocab_size)
                asking = asyncio.create_task(clients.ask_all(asked(), self._options.clients))
                await asyncio.sleep(2)
                descriptors = descriptors_of(fleet)
                for number in range(count):
                    await asyncio.to_thread(change, fleet, number)
                over = True
                await asking
                held = await await_idle(fleet)
                return clients, descriptors_of(fleet) - descriptors, held

        with launched(zoo.path, self._arguments(modules, f"[adapters]\nmax_loras_per_batch = {IN_BATCH}\n")) as fleet:
            clients, descriptors, held = asyncio.run(measure(fleet))
            left = until_none(lambda: left_over(fleet, modules))
        warm = memory[int(WARM_REPLACEMENTS * count) :]
        self.details["replace"] = {
            "replacement_s": summary(took),
            "request_s": summary(clients.took),
            "outcomes": dict(clients.outcomes),
            "server_mib": [round(value / 2**20, 1) for value in memory[:: max(1, count // 20)]],
            "held": held,
            "left": left,
        }
        self.figures += [
            Figure(f"replacement, median of {count}", round(median(took), 2), "s"),
            Figure(f"failed of {len(clients.took)} requests meanwhile", clients.failed, "", 0),
            Figure("memory that the server has come to", round((warm[-1] - warm[0]) / 2**20, 1), "MiB", 20),
            Figure("descriptors that it has come to", descriptors, "", 16),
            Figure("KV, requests, adapters, files left", len(held) + len(left), "", 0),
        ]

    def fair(self) -> None:
        """More adapters than a batch takes."""
        zoo, modules, options = self._zoo(FEW), names(FEW), self._options
        dice = random.Random(3)
        asked = [dice.choice(modules) for _ in range(options.fair_requests)]

        async def measure(fleet: RunningFleet) -> Clients:
            async with session() as http:
                clients = Clients(fleet.url, http, zoo.base.vocab_size)
                await clients.ask_all(modules * 2, options.clients)  # all are loaded
                clients.took.clear()
                await clients.ask_all(asked, options.clients)
                return clients

        with launched(zoo.path, self._arguments(modules, f"[adapters]\nmax_loras_per_batch = {IN_BATCH}\n")) as fleet:
            clients = asyncio.run(measure(fleet))
        self.details["fair"] = {"request_s": summary(clients.took), "outcomes": dict(clients.outcomes)}
        self.figures += [
            Figure("longest wait, of the median one", round(max(clients.took) / median(clients.took), 2), "", 3.0),
            Figure(f"failed of {len(asked)} requests", clients.failed, "", 0),
        ]

    def leave(self) -> None:
        """What clients that went, and prompts that were refused, keep of an adapter."""
        zoo, modules, options = self._zoo(FEW), names(FEW), self._options
        changed = modules[0]
        took: list[float] = []

        def replace_and_wait(fleet: RunningFleet, number: int) -> None:
            add_adapter(zoo, changed, 20_000 + number, options.rank, replace=True)
            started = time.monotonic()
            change_fleet(zoo.path, ChangeRequest(command="update", module=changed), lambda text: None)
            if left := until_none(lambda: left_over(fleet, modules)):
                raise SystemExit(f"left after {LEFT_WITHIN_S:g} s: {', '.join(left)}")
            took.append(time.monotonic() - started)

        async def measure(fleet: RunningFleet) -> None:
            async with session() as http:
                clients = Clients(fleet.url, http, zoo.base.vocab_size)
                for number in range(options.leavings):
                    await clients.ask_all(modules, options.clients)  # all are loaded
                    await asyncio.gather(*(clients.leave(changed, each, 0.2 + 0.1 * each) for each in range(LEAVING)))
                    await refused(fleet, http, changed)
                    await asyncio.to_thread(replace_and_wait, fleet, number)

        with launched(zoo.path, self._arguments(modules)) as fleet:
            asyncio.run(measure(fleet))
        self.details["leave"] = {"gone_s": summary(took)}
        self.figures.append(Figure("old adapter gone after clients left, slowest", round(max(took), 2), "s", 5.0))


async def refused(fleet: RunningFleet, http: aiohttp.ClientSession, module: str) -> None:
    """Send the adapter's server a prompt that is too long for it; the router would not."""
    [name] = (link.name for link in links_of(fleet) if link.name.startswith(f"{module}@"))
    body = {"input_ids": [20] * REFUSED_TOKENS, "lora_path": name}
    auth = {"Authorization": f"Bearer {fleet.key}"}
    async with http.post(f"{fleet.worker_url(SERVER)}/generate", json=body, headers=auth) as answer:
        if answer.status != 400:
            raise SystemExit(f"a prompt of {REFUSED_TOKENS} tokens was not refused: {answer.status}")


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median": median(seconds), "p99": percentile(seconds, 99), "max": max(seconds)}


def descriptors_of(fleet: RunningFleet) -> int:
    """Files and connections that the processes of the adapters' server have open."""
    return sum(process.num_fds() for process in family(fleet.pids()[SERVER]) if psutil.pid_exists(process.pid))


def left_over(fleet: RunningFleet, modules: list[str]) -> list[str]:
    """What the fleet and its server have beside one adapter for each module."""
    links = {link.name for link in links_of(fleet)}
    listed = json.loads(HttpClient(fleet.worker_url(SERVER), fleet.key).get("/v1/models", 30))["data"]
    loaded = {entry["id"] for entry in listed if "@" in entry["id"]}
    forms = [path for module in modules for path in sorted((fleet.zoo / ".adapters" / module).glob("*/"))]
    return [
        *sorted(loaded - links),
        *sorted(links)[len(modules) :],
        *(str(path) for path in forms[len(modules) + 1 :]),  # the last replaced one's goes with the next change
    ]


def links_of(fleet: RunningFleet) -> list[Path]:
    """What the fleet offers to its servers."""
    return list((fleet.zoo / ".run" / "adapters").iterdir())


def until_none(look: Callable[[], list[str]]) -> list[str]:
    """What there is to see once there is nothing, or the time is over."""
    deadline = time.monotonic() + LEFT_WITHIN_S
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


PARTS = ("launch", "zipf", "replace", "fair", "leave")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--part", action="append", choices=PARTS, help="this one alone; may be given again")
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--replacements", type=int, default=200)
    parser.add_argument("--fair-requests", type=int, default=600)
    parser.add_argument("--leavings", type=int, default=20, help="times that clients leave an adapter that is replaced")
    parser.add_argument("--repeats", type=int, default=3, help="launches of each size")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--zipf-clients", type=int, default=32)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--base", type=Path, help="checkpoint of the base, for new zoos [a tiny random one]")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    on = machine.describe()
    options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        for part in PARTS:
            if part in (options.part or PARTS):
                note(part)
                getattr(bench, part)()
    print(report.heading(on), report.table(bench.figures), sep="\n\n")
    if options.json:
        document = {"machine": on, "figures": [figure.as_json() for figure in bench.figures], "parts": bench.details}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
