"""How fast a small fleet is on this machine: `make bench-smoke`, or `python scripts/bench_smoke.py --json FILE`.

One run of the real `psserve launch` over a synthetic zoo of tiny random models, so all of it is overhead: start, idle
CPU, memory, and what a request costs. Prints a table, and one JSON document as the last line of standard output.
Targets are shown beside the figures; missing one fails nothing. docs/measuring.md tells the method.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from measuring import report
from measuring.client import Client, completion, completion_pair, random_ids
from measuring.report import Figure, in_ms, percentile

from psserve.bench import machine
from psserve.bench.load.options import LoadOptions
from psserve.bench.load.run import run_load
from psserve.bench.record import RequestRecord
from psserve.bench.session import Call, Session, Step
from psserve.bench.systems.fleet import RunningFleet, launched
from psserve.bench.systems.processes import CpuMeter, pss_bytes
from psserve.errors import BenchError

MODULES = ("alpha", "beta", "gamma")
PROMPT_TOKENS = 200
ANSWER_TOKENS = 16
TURNS = 30
PAIRS = 60
CONCURRENT = 16
ROUNDS = 5
IDLE_SECONDS = 10.0
NOISY_PERCENT = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Time a small fleet on this machine.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON document to FILE too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="psserve-bench-") as directory:
        document = measure(Path(directory) / "zoo")
    text = json.dumps(document)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)
    return 0


def measure(zoo: Path) -> dict[str, Any]:
    """Build a zoo, launch it, measure, print the table; returns the JSON document."""
    from psserve.zoo.synthetic.zoo import build_zoo

    note("building a synthetic zoo")
    base = build_zoo(zoo, modules=MODULES).base
    note("launching 1 prefill and 3 decode servers")
    with launched(zoo, ["--device", "cpu", "--transfer", "nixl"]) as fleet:
        note(f"ready; watching the idle fleet for {IDLE_SECONDS:g} s")
        meter = CpuMeter(fleet.supervisor)
        time.sleep(IDLE_SECONDS)
        idle = meter.read()
        meter = CpuMeter(fleet.supervisor)
        figures = [
            Figure("ready: 1 prefill + 3 decode servers", round(fleet.ready_s, 1), "s", 45),
            Figure("idle fleet's CPU", round(idle.tree, 1), "% of a core", 20),
            *asyncio.run(requests(fleet, base.path / "tokenizer.json", base.vocab_size)),
            Figure("fleet's memory (PSS)", round(pss_bytes(fleet.supervisor) / 2**30, 2), "GiB"),
        ]
        others = max(idle.others, meter.read().others)
    return document(figures, others, f"{base.architecture}, {base.num_layers} layers, {base.dtype}, random weights")


async def requests(fleet: RunningFleet, tokenizer: Path, vocab_size: int) -> list[Figure]:
    """Everything that is measured by sending requests."""
    load = partial(run_load, endpoints=dict.fromkeys(MODULES, fleet.url))
    note(f"{TURNS} chat turns, one after the other")
    alone = LoadOptions(concurrency=1, warmup=3 * len(MODULES), tokenizer=tokenizer, salt="alone")
    figures = turns([record for record in await load(chats(alone.warmup + TURNS), options=alone) if not record.warmup])
    async with Client(fleet) as client:
        figures += await router_overhead(client, random.Random(0), vocab_size)
    note(f"{ROUNDS} rounds of {CONCURRENT} chat turns at once")
    options = [LoadOptions(concurrency=CONCURRENT, tokenizer=tokenizer, salt=str(n)) for n in range(ROUNDS)]
    return figures + at_once([seconds(await load(chats(CONCURRENT), options=one)) for one in options])


def chats(count: int) -> list[Session]:
    """New chats of one turn, over the modules in turn."""
    calls = (Call(MODULES[number % 3], ANSWER_TOKENS) for number in range(count))
    return [Session(f"chat-{number}", "", 0, (Step(PROMPT_TOKENS, (call,)),)) for number, call in enumerate(calls)]


def seconds(records: Sequence[RequestRecord]) -> list[float]:
    """How long the answers took. Raises BenchError if one failed."""
    if failed := [record.error for record in records if record.error is not None]:
        raise BenchError(f"a request failed: {failed[0]}")
    return [record.done_s - record.sent_s for record in records]


def turns(records: Sequence[RequestRecord]) -> list[Figure]:
    """What one chat turn takes."""
    whole, first = seconds(records), [(record.first_s or 0) - record.sent_s for record in records]
    return [
        Figure(f"chat turn, {PROMPT_TOKENS} + {ANSWER_TOKENS} tokens: median", in_ms(median(whole)), "ms", 150),
        Figure("chat turn: p95", in_ms(percentile(whole, 95)), "ms"),
        Figure("time to first token, streamed: median", in_ms(median(first)), "ms"),
        Figure("time to first token, streamed: p95", in_ms(percentile(first, 95)), "ms"),
    ]


async def router_overhead(client: Client, rng: random.Random, vocab_size: int) -> list[Figure]:
    """The same kind of request through the router and past it, alternately: the slower leg is what it costs anyway."""
    note(f"{PAIRS} requests through the router and {PAIRS} past it, alternately")
    routed, direct, claimed = [], [], []
    for i in range(PAIRS):
        module = MODULES[i % 3]
        for through in (True, False) if i % 2 else (False, True):
            prompt = random_ids(rng, PROMPT_TOKENS, vocab_size)
            if not through:
                direct.append(await completion_pair(client, module, prompt, ANSWER_TOKENS))
                continue
            answer = await client.post("/v1/completions", completion(module, prompt, ANSWER_TOKENS))
            routed.append(answer.seconds)
            claimed.append((answer.overhead_ms or 0.0) / 1000)
    added = [one - other for one, other in zip(routed, direct, strict=True)]
    return [
        Figure("router's time over the slower leg: median difference", in_ms(median(added)), "ms", 3),
        Figure("router's time by its own account: median", in_ms(median(claimed)), "ms"),
        Figure("completion past the router: median", in_ms(median(direct)), "ms"),
        Figure("completion through the router: median", in_ms(median(routed)), "ms"),
    ]


def at_once(rounds: Sequence[Sequence[float]]) -> list[Figure]:
    """What chat turns take that start at the same time."""
    ratios = [max(one) / median(one) for one in rounds]
    return [
        Figure(f"{CONCURRENT} at once: median", in_ms(median(map(median, rounds))), "ms"),
        Figure(f"{CONCURRENT} at once: slowest / median, worst round", round(max(ratios), 2), "times", 3),
    ]


def document(figures: list[Figure], others: float, models: str) -> dict[str, Any]:
    """Print heading and table; returns the same as JSON."""
    found = machine.describe()
    quiet = others < NOISY_PERCENT
    print(f"{report.heading(found)}\nmodels: {models}\n\n{report.table(figures)}\n")
    if not quiet:
        print(f"Not final: other processes used up to {others:.0f} % of a core meanwhile.\n")
    return {
        "benchmark": "smoke",
        "machine": found,
        "models": models,
        "others_cpu_percent": round(others, 1),
        "quiet": quiet,
        "figures": [figure.as_json() for figure in figures],
    }


def note(text: str) -> None:
    print(f"bench-smoke: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
