"""How well routing policies do on simulated prefill servers: `python scripts/bench_routing.py [--json FILE]`.

Four servers with real radix caches (pages, leaf eviction) and queues serve the agent workload under each policy, at
several loads and cache sizes. Counts, not timings, so any machine gives the same figures. It also times what the router
itself spends on a prompt of 40,000 characters. docs/routing.md tells how to read the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from psserve.contracts.router_config import POLICIES
from psserve.router.placement.prompt_key import TextKeys
from psserve.router.policies import Request, make_policy
from psserve.router.policies.simple import Random
from scripts.measuring.statistics import median, percentile
from scripts.routing_sim.replay import Outcome, Servers, replay
from scripts.routing_sim.workload import Workload, make_sessions

CASES: dict[str, tuple[Workload, Servers]] = {
    "low load": (Workload(sessions=200, sessions_per_s=0.1), Servers()),
    "medium load": (Workload(sessions=200, sessions_per_s=0.5), Servers()),
    "high load": (Workload(sessions=200, sessions_per_s=2.5), Servers()),
    "small caches": (Workload(sessions=200, sessions_per_s=0.5), Servers(kv_tokens=200_000)),
    "one system prompt": (
        Workload(sessions=200, sessions_per_s=0.5, agents=1, system=(6_000, 6_000)),
        Servers(kv_tokens=200_000),
    ),
    "long contexts": (Workload(sessions=100, sessions_per_s=0.2, agents=3, task=(5_000, 30_000)), Servers()),
}
PROMPT_CHARS = 40_000
TURN_CHARS = 1_500


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare routing policies on simulated prefill servers.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON document to FILE too")
    options = parser.parse_args()
    document = {"cases": {name: case(name) for name in CASES}, "router": router_cost()}
    text = json.dumps(document, indent=1)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)
    return 0


def case(name: str) -> dict[str, Any]:
    """Every policy on one case; rows go to stderr as they come."""
    workload, servers = CASES[name]
    sessions = make_sessions(workload)
    results = {}
    for policy in POLICIES:
        made = Random(seed=1) if policy == "random" else make_policy(policy, servers.kv_tokens)
        results[policy] = figures(replay(sessions, made, servers))
        print(f"{name:18} {policy:13} {results[policy]}", file=sys.stderr)
    return {"workload": asdict(workload), "servers": asdict(servers), "policies": results}


def figures(outcome: Outcome) -> dict[str, Any]:
    waits = sorted(outcome.waits_s)
    return {
        "requests": outcome.requests,
        "hit_ratio": round(outcome.hit_tokens / outcome.prompt_tokens, 4),
        "share_of_oracle": round(outcome.oracle_share, 4),
        "imbalance": round(outcome.imbalance, 3),
        "utilization": round(sum(outcome.busy_s) / len(outcome.busy_s) / outcome.makespan_s, 3),
        "prefill_p50_s": round(median(waits), 3),
        "prefill_p95_s": round(percentile(waits, 95), 3),
        "outcomes": outcome.outcomes,
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
