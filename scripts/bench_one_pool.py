"""One KV pool against a copy for each server: `python scripts/bench_one_pool.py [--json FILE]`.

Launches two fleets of one prefill and four decode servers with the same KV tokens in all, one with `--transfer nixl`
and one with `--transfer shared`, and keeps both up: every measurement visits one after the other, in turned order the
next time. Prints a table of figures beside their targets. Takes some six minutes on two cores that nothing else uses.

    stored      tokens of KV in all pools once four modules have read a context of 1,024 tokens, of one context
    held        sessions of 1,500 tokens whose contexts stay cached (measuring/held.py)
    hand-off    of 1,024 tokens that the prefill server has: until the decode server knows that their KV is there
    low load    the time that sessions take, one after the other
    pressure    the 95th percentile of the sessions' latency, with more of them at a time than private pools hold

The last three are medians of the ratios of the repeats. docs/one-pool.md has the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import tomli_w
from measuring import report
from measuring.client import Client, completion, random_ids
from measuring.held import CONTEXT, HELD, KV_TOKENS, MODULES, PAGE, cached_part, run_sessions, session
from measuring.one_pool import phases_ms
from measuring.report import Figure

from psserve.bench import machine
from psserve.bench.metrics import summarise
from psserve.bench.systems.counters import scrape
from psserve.bench.systems.fleet import RunningFleet, launched
from psserve.bench.trace.spans import export_args
from psserve.fleet.plan.fitting import pools
from psserve.fleet.plan.settings import pool_for
from psserve.fleet.run.router_client import HttpClient
from psserve.zoo import Zoo

TRANSFERS = ("nixl", "shared")
LENGTH = 1_024
"""Of the context that is stored and handed over."""
COUNTS = {"nixl": (15, 16, 17), "shared": (23, 24, 25)}
"""Numbers of sessions that are tried."""
SHAPE = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64}
"""Of the random models. With four layers a token has 8 KiB of KV, a sixteenth of what it has in Llama-3.1-8B."""
TURNS = 8
LOW, HIGH = 6, 20
"""Sessions: one after the other, and all at a time."""
TOLD_S = 33.0
"""An idle server tells every 30 s how full its pool is."""
TARGETS = {"stored": 1.05, "held": 23, "handoff": round(1 / 3, 3), "low": 1.0, "pressure": round(1 / 1.3, 3)}


class Fleets:
    """Both fleets, by transfer, and where their servers write down when they did what."""

    def __init__(self, zoo: Zoo, running: Mapping[str, RunningFleet], exports: Mapping[str, Path]) -> None:
        self.zoo = zoo
        self.running = running
        self.exports = exports
        self._turn = 0

    def each(self, measure: Callable[[str, RunningFleet], Any]) -> dict[str, Any]:
        """What a measurement finds of each, the first one last the next time."""
        self._turn += 1
        found = {}
        for name in TRANSFERS if self._turn % 2 else reversed(TRANSFERS):
            found[name] = measure(name, self.running[name])
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
        return found

    @property
    def tokenizer(self) -> Path:
        return self.zoo.base.path / "tokenizer.json"


def sizes(transfer: str) -> dict[str, int]:
    """Tokens of a pool of each role."""
    return dict(pools(KV_TOKENS, 1, len(MODULES), pool_for(CONTEXT, PAGE), one_pool=transfer == "shared"))


def stored(fleets: Fleets) -> dict[str, float]:
    """Tokens in all pools after every module read one context, of those that the context has."""
    prompt = random_ids(random.Random(1), LENGTH + 1, fleets.zoo.base.vocab_size)

    async def read(fleet: RunningFleet) -> None:
        async with Client(fleet) as client:
            for module in MODULES:
                await client.post("/v1/completions", completion(module, prompt, 4))

    for fleet in fleets.running.values():
        for url in worker_urls(fleet):
            HttpClient(url, fleet.key).post("/flush_cache", {}, 30).close()
        asyncio.run(read(fleet))
    time.sleep(TOLD_S)
    return fleets.each(lambda _, fleet: round(stored_tokens(fleet) / LENGTH, 3))


def worker_urls(fleet: RunningFleet) -> list[str]:
    """Those of all prefill and decode servers."""
    return [fleet.worker_url(worker["name"]) for worker in fleet.config["workers"]]


def stored_tokens(fleet: RunningFleet) -> float:
    """Tokens in all pools of a fleet that has been idle for TOLD_S."""
    readings = [scrape(url, fleet.key) for url in worker_urls(fleet)]
    return sum(one["sglang:kv_evictable_tokens"] + one["sglang:kv_used_tokens"] for one in readings)


def held(fleets: Fleets) -> dict[str, dict[str, Any]]:
    """What part of later turns' prompts is cached, by number of sessions, and the most sessions that stay."""

    def measure(transfer: str, fleet: RunningFleet) -> dict[str, Any]:
        cached = {n: round(asyncio.run(cached_part(fleet, fleets.tokenizer, n)), 3) for n in COUNTS[transfer]}
        return {"sessions": max((n for n, part in cached.items() if part >= HELD), default=0), "cached": cached}

    return fleets.each(measure)


def handed_over(fleets: Fleets, sessions: int, salt: str) -> dict[str, dict[str, float]]:
    """Milliseconds of handing a context over that the prefill server has, and a decode server has nothing of."""

    def measure(transfer: str, fleet: RunningFleet) -> dict[str, float]:
        return phases_ms(fleet, fleets.tokenizer, fleets.exports[transfer], MODULES, LENGTH, sessions, salt)

    return fleets.each(measure)


def loaded(fleets: Fleets, count: int, at_once: int, salt: str) -> dict[str, dict[str, float]]:
    """So many sessions: the time that all take, and percentiles. Milliseconds."""

    def measure(_: str, fleet: RunningFleet) -> dict[str, float]:
        sessions = [session(number, TURNS) for number in range(count)]
        records = asyncio.run(run_sessions(fleet, fleets.tokenizer, sessions, at_once=at_once, salt=salt))
        made = summarise(records)
        return {
            "all_ms": round(made["duration"] * 1000, 1),
            "p95_session_ms": round(made["psserve"]["sessions"]["p95_session_latency_ms"], 1),
            "p95_request_ms": round(made["p95_e2e_latency_ms"], 1),
            "hit_ratio": round(made["cache_report"]["cache_hit_rate_pct"] / 100, 3),
        }

    return fleets.each(measure)


def ratio(runs: list[dict[str, Any]], key: str) -> float:
    """The median of what one pool takes of what NIXL takes, in the same repeat."""
    return round(median(run["shared"][key] / run["nixl"][key] for run in runs), 3)


def measured(fleets: Fleets, repeats: int, rounds: int) -> dict[str, Any]:
    """All measurements, as JSON."""
    found: dict[str, Any] = {"stored": stored(fleets), "held": held(fleets)}
    turns = range(repeats)
    found["handoff_ms"] = [handed_over(fleets, rounds, f"handed-{turn}") for turn in turns]
    found["low"] = [loaded(fleets, LOW, 1, f"low-{turn}") for turn in turns]
    found["pressure"] = [loaded(fleets, HIGH, HIGH, f"high-{turn}") for turn in turns]
    return found


def figures(found: Mapping[str, Any]) -> list[Figure]:
    """The measurements beside their targets."""
    of_nixl, p95 = "of NIXL's", ratio(found["pressure"], "p95_session_ms")
    return [
        Figure("KV stored, four modules read a context", found["stored"]["shared"], "contexts", TARGETS["stored"]),
        Figure("  with NIXL", found["stored"]["nixl"], "contexts"),
        Figure("sessions that stay cached", found["held"]["shared"]["sessions"], "", TARGETS["held"], is_least=True),
        Figure("  with NIXL", found["held"]["nixl"]["sessions"], ""),
        Figure(f"hand-off of {LENGTH} tokens", ratio(found["handoff_ms"], "transfer"), of_nixl, TARGETS["handoff"]),
        Figure("time of a low load", ratio(found["low"], "all_ms"), of_nixl, TARGETS["low"]),
        Figure(f"p95 of {HIGH} sessions at a time", p95, of_nixl, TARGETS["pressure"]),
        Figure("  time of all", ratio(found["pressure"], "all_ms"), of_nixl),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--rounds", type=int, default=8, help="contexts of each repeat that are handed over three times"
    )
    parser.add_argument("--layers", type=int, default=4, help="of the random models: each makes a token's KV larger")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    from psserve.zoo.synthetic.zoo import build_zoo

    on = machine.describe()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="psserve-pool-") as folder, ExitStack() as up:
        running, exports = {}, {transfer: Path(folder) / f"{transfer}-exports" for transfer in TRANSFERS}
        for transfer in TRANSFERS:
            zoo = build_zoo(Path(folder) / transfer, modules=MODULES, num_hidden_layers=options.layers, **SHAPE)
            config = Path(folder) / f"{transfer}.toml"
            tables = {role: {"kv_tokens": size} for role, size in sizes(transfer).items()}
            settings = {"transfer": transfer, "context_length": CONTEXT, "page_size": PAGE, **tables}
            config.write_text(tomli_w.dumps(settings))
            exports[transfer].mkdir()
            arguments = ["--device", "cpu", "--config", str(config), "--", *export_args(exports[transfer])]
            running[transfer] = up.enter_context(launched(zoo.path, arguments, within_s=600))
        found = measured(Fleets(zoo, running, exports), options.repeats, options.rounds)
    table = figures(found)
    print(report.heading(on), report.table(table), sep="\n\n")
    if options.json:
        document = {"machine": on, "figures": [figure.as_json() for figure in table]}
        document["options"] = {name: getattr(options, name) for name in ("repeats", "rounds", "layers")}
        document |= {
            "kv_tokens": KV_TOKENS,
            "pools": {transfer: sizes(transfer) for transfer in TRANSFERS},
            "measured": found,
        }
        document["seconds"] = round(time.monotonic() - started)
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
