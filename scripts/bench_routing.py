"""How well routing policies do on simulated prefill servers: `python scripts/bench_routing.py [--json FILE]`.

Four of `psserve simulate`'s prefill servers (radix caches, queues) serve the agent workload under each policy, at
several loads and cache sizes. No clock, so any machine gives the same figures. It also times what the router itself
spends on a prompt of 40,000 characters. docs/routing.md tells how to read the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from psserve.bench.session import Call, Session, Step
from psserve.bench.simulator.costs import Costs, DecodeCosts, PrefillCosts, TransferCosts
from psserve.bench.simulator.simulation import SimulatedRun, simulate
from psserve.bench.simulator.system import Setup
from psserve.contracts.router_config import POLICIES, PolicyName
from psserve.router.placement.prompt_key import TextKeys
from psserve.router.policies import Request, make_policy
from scripts.measuring.report import percentile

MODULES = ("m0", "m1", "m2", "m3")
SERVERS, TOKENS_PER_S, BATCH_S = 4, 8_000, 0.01
CHUNK = 2_048
"""Tokens of a prefill batch, as SGLang chooses for GPUs of that speed."""
ROOM = 10**9
"""Tokens of KV that no workload fills."""
FREE = Costs(PrefillCosts(0, 0, 0), DecodeCosts(0, 0, 0), TransferCosts(0, 0), kv_bytes=0, router_s=0)
COSTS = replace(FREE, prefill=PrefillCosts(BATCH_S, 1 / TOKENS_PER_S, 0))
"""Prefill alone: decode servers answer at once, and have room for everything."""
COMPARED = tuple(name for name in POLICIES if name != "random")
"""`random` would give other figures each time."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Agents whose contexts grow turn by turn, and servers for them. Lengths are tokens; ranges are inclusive."""

    kv_tokens: int = 400_000
    """Of each server."""
    sessions: int = 200
    sessions_per_s: float = 0.5
    """Poisson arrivals."""
    agents: int = 6
    """Kinds of sessions; those of one kind begin with the same system prompt."""
    turns: tuple[int, int] = (4, 12)
    """In each of them all modules read the context, one after the other."""
    system: tuple[int, int] = (600, 2_000)
    task: tuple[int, int] = (300, 4_000)
    step: tuple[int, int] = (100, 440)
    """What a module's answer and its tools' output add to the context."""
    pause_s: float = 2.0
    """Mean time from one module's prefill to the next one's request (exponential): it generates, tools run."""


CASES = {
    "low load": Case(sessions_per_s=0.1),
    "medium load": Case(),
    "high load": Case(sessions_per_s=2.5),
    "small caches": Case(kv_tokens=200_000),
    "one system prompt": Case(agents=1, system=(6_000, 6_000), kv_tokens=200_000),
    "long contexts": Case(sessions=100, sessions_per_s=0.2, agents=3, task=(5_000, 30_000)),
}
PROMPT_CHARS = 40_000
TURN_CHARS = 1_500


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare routing policies on simulated prefill servers.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON document to FILE too")
    options = parser.parse_args()
    document = {"cases": {name: compared(name, case) for name, case in CASES.items()}, "router": router_cost()}
    text = json.dumps(document, indent=1)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)
    return 0


def compared(name: str, case: Case) -> dict[str, Any]:
    """Every policy on one case; rows go to stderr as they come."""
    oracle, results = oracle_tokens(case), {}
    for policy in COMPARED:
        results[policy] = figures(run(case, policy), oracle)
        print(f"{name:18} {policy:13} {results[policy]}", file=sys.stderr)
    return {"case": asdict(case), "policies": results}


def make_sessions(case: Case) -> Iterator[Session]:
    """All sessions in order of arrival, the same each time."""
    rng = random.Random(1)
    systems = [rng.randint(*case.system) for _ in range(case.agents)]
    start_s = 0.0
    for number in range(case.sessions):
        start_s += rng.expovariate(case.sessions_per_s)
        kind, task = rng.randrange(case.agents), rng.randint(*case.task)
        calls = [Call(module, rng.randint(*case.step)) for _ in range(rng.randint(*case.turns)) for module in MODULES]
        first, *others = calls
        steps = (Step(task, (first,)), *(Step(0, (call,), rng.expovariate(1 / case.pause_s)) for call in others))
        yield Session(f"session-{number}", f"system-{kind}", systems[kind], steps, start_s)


def run(case: Case, policy: PolicyName, servers: int = SERVERS, costs: Costs = COSTS) -> SimulatedRun:
    """One policy on one case."""
    setup = Setup(
        system="shared",
        modules=MODULES,
        prefill=servers,
        decode=len(MODULES),
        costs=costs,
        kv_tokens=case.kv_tokens,
        chunk=CHUNK,
        decode_kv_tokens=ROOM,
        prefill_policy=policy,
    )
    return simulate(setup, make_sessions(case))


def oracle_tokens(case: Case) -> int:
    """What an oracle finds that knows all that any server ever computed, forgets nothing and never waits."""
    return run(replace(case, kv_tokens=ROOM), "prefix", servers=1, costs=FREE).counters.cached_tokens


def figures(outcome: SimulatedRun, oracle: int) -> dict[str, Any]:
    """Of one run. Imbalance is the largest busy time over the mean: 1 is even."""
    counters, busy_s = outcome.counters, outcome.busy_s[:SERVERS]
    waits_s = [record.spans["prefill"][1] - record.sent_s for record in outcome.records]
    return {
        "requests": counters.requests,
        "hit_ratio": round(counters.cached_tokens / counters.prompt_tokens, 4),
        "share_of_oracle": round(counters.cached_tokens / oracle, 4),
        "imbalance": round(max(busy_s) / fmean(busy_s), 3),
        "utilization": round(fmean(busy_s) / outcome.duration_s, 3),
        "prefill_p50_s": round(median(waits_s), 3),
        "prefill_p95_s": round(percentile(waits_s, 95), 3),
    }


def router_cost() -> dict[str, float]:
    """What the router spends on one chat of PROMPT_CHARS characters of Python, and what tokenizing it would take."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    content = "".join(path.read_text(errors="replace") for path in files)[:PROMPT_CHARS]
    turns = [content[start : start + TURN_CHARS] for start in range(0, PROMPT_CHARS, TURN_CHARS)]
    body = {"messages": [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]}
    keys, loop = TextKeys(), asyncio.new_event_loop()
    prompt = loop.run_until_complete(keys.prompt(body))
    policy, names = make_policy("prefix", 10_000_000), [f"prefill-{index}" for index in range(4)]

    def choose(servers: Sequence[str] = names) -> None:
        policy.finish(policy.choose(Request(prompt, "s"), servers), served=True)

    for name in names:
        choose([name])
    tokenizer = make_tokenizer(files)
    costs = {
        "tokens": len(tokenizer.encode(content).ids),
        "key_ms": timed(lambda: loop.run_until_complete(keys.prompt(body))),
        "choose_ms": timed(choose),
        "tokenize_ms": timed(lambda: tokenizer.encode(content), rounds=20),
    }
    loop.close()
    return costs


def make_tokenizer(files: Sequence[Path]) -> Tokenizer:
    """Byte-level BPE as today's models have it, with a vocabulary of 40,000, trained on `files`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=40_000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train([str(path) for path in files], trainer)
    return tokenizer


def timed(function: Callable[[], object], rounds: int = 200) -> float:
    """Median milliseconds."""
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        took.append((time.perf_counter() - start) * 1_000)
    return round(median(took), 3)


if __name__ == "__main__":
    sys.exit(main())
