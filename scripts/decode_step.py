"""Where the CPU time of a decode step and of a hand-over goes.

    python scripts/decode_step.py [--streams 4] [--overlap] [--transfer shared]     a decode step
    python scripts/decode_step.py --hand-overs [--transfer shared]                  a hand-over

Launches a prefill and a decode server of the CPU table's model, streams answers from them, and prints as JSON what each
process took of the CPU for a token, and what part of each scheduler's loop each kind of work has. With --hand-overs
all answers are one token to one prompt, which is in the prefill cache but for its end: little is computed beside the
hand-over, and a token is one. CPU time is what is counted, so a busy machine does not change it much.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from bench_cpu import LONGEST, POOL, SHAPE
from measuring.comparison import ROOT, bench_zoo

from psserve.bench.systems.fleet import RunningFleet, launched
from psserve.bench.systems.system import warm_up
from psserve.fleet.plan.sglang_args import OVERLAP_ON_CPU

MODULE = "m0"
SAMPLER = ROOT / "scripts" / "measuring" / "sampler"
LOOPS = {"prefill_scheduler": "_disagg_prefill", "decode_scheduler": "_disagg_decode"}
"""What is in the name of a loop's function, with overlap or without."""
KINDS = (
    ("hand-over: KV sent", "send_kv_chunk"),
    ("matrix products", "quantization/unquant.py"),
    ("matrix products", "engine/cpu/linear.py"),
    ("attention", "engine/cpu/attention.py"),
    ("norms, rotation, Python of layers", "model_runner.py:forward"),
    ("sampling", "sampler.py"),
    ("batch: made, prepared, looked at", "run_batch"),
    ("answers to the detokenizer", "stream_output"),
    ("batch: made, prepared, looked at", "process_batch_result"),
    ("requests received", "ingest_requests"),
    ("hand-over: polls and pauses", "on_idle"),
    ("hand-over: polls and pauses", "process_decode_queue"),
    ("hand-over: polls and pauses", "process_disagg_prefill_inflight_queue"),
    ("hand-over: polls and pauses", "pop_bootstrapped"),
    ("hand-over: polls and pauses", "get_new_prebuilt_batch"),
    ("batch: made, prepared, looked at", "batch_to_run"),
)
"""Kind of work -> what stands in its stacks; the first that fits counts."""
REST = "rest of the loop"
HOOKS = ("psserve/engine/handover", "psserve/engine/fixes", "psserve/engine/onepool", "plugins/hook_registry.py")
"""Of these a stack's last function is psserve's own, whatever kind it is counted as."""


def main() -> int:
    options = parse(sys.argv[1:])
    zoo = bench_zoo(options.work / "zoo-1", 1, SHAPE)
    if options.overlap:
        os.environ[OVERLAP_ON_CPU] = "1"
    with tempfile.TemporaryDirectory(prefix="psserve-samples-") as folder:
        arguments = ["--modules", MODULE, "--device", "cpu", "--transfer", options.transfer]
        arguments += ["--kv-tokens", str(4 * POOL), "--context-length", str(LONGEST)]
        arguments += ["--env", f"PSSERVE_SAMPLES={folder}", "--env", f"PYTHONPATH={SAMPLER}"]
        with launched(zoo, arguments) as fleet:
            warm_up({MODULE: fleet.url}, within_s=300, note=lambda text: None)
            before = cpu_of(fleet)
            tokens = asyncio.run(answers(fleet.url, options))
            after = cpu_of(fleet)
        loops = {name: of_loop(Path(folder), loop) for name, loop in LOOPS.items()}
    per_token = {name: round(1000 * (after[name] - before.get(name, 0)) / tokens, 3) for name in after}
    print(json.dumps({"tokens": tokens, "cpu_ms_per_token": per_token, **loops}, indent=1))
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Where a decode step's CPU time goes.")
    add = parser.add_argument
    add("--streams", type=int, default=4, help="at a time [default: %(default)s]")
    add("--hand-overs", action="store_true", help="answers of one token to one prompt")
    add("--requests", type=int, help="[default: 24, of hand-overs 1,000]")
    add("--tokens", type=int, default=150, help="of an answer [default: %(default)s]")
    add("--transfer", default="nixl", help="[default: %(default)s]")
    add("--overlap", action="store_true", help="schedule as on GPUs, beside the forward")
    add("--work", type=Path, default=ROOT / "build" / "decode-step", help="for the zoo [default: %(default)s]")
    options = parser.parse_args(arguments)
    options.requests = options.requests or (1000 if options.hand_overs else 24)
    options.tokens = 1 if options.hand_overs else options.tokens
    return options


async def answers(url: str, options: argparse.Namespace) -> int:
    """Stream the answers, some at a time. Returns how many tokens they had."""
    places = asyncio.Semaphore(options.streams)

    async def answer(number: int) -> None:
        words = " ".join(f"{number}-{place}" for place in range(30))
        body = {"model": MODULE, "messages": [{"role": "user", "content": words}], "stream": True, "temperature": 0}
        async with places, client.post(f"{url}/v1/chat/completions", json=body | length) as response:
            response.raise_for_status()
            await response.read()

    length = {"max_tokens": options.tokens, "ignore_eos": True}
    prompts = [0] * options.requests if options.hand_overs else range(options.requests)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as client:
        await asyncio.gather(*map(answer, prompts))
    return int(options.requests * options.tokens)


def cpu_of(fleet: RunningFleet) -> dict[str, float]:
    """CPU seconds so far: `prefill-0 scheduler`, `router`, ..."""
    used: dict[str, float] = {}
    for name, pid in fleet.pids().items():
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            title = process.cmdline()[0].partition("::")[2].partition(" ")[0] if process.pid != pid else "server"
            times = process.cpu_times()
            key = f"{name} {title}"
            used[key] = used.get(key, 0.0) + times.user + times.system
    return used


def of_loop(folder: Path, loop: str) -> dict[str, Any]:
    """Shares of a scheduler's loop in %, by kind of work, and of psserve's hooks among them."""
    documents = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    sampled = next(document for document in documents if within(loop, document["stacks"]))
    stacks = within(loop, sampled["stacks"])
    every = sum(stacks.values())
    kinds: Counter[str] = Counter()
    for stack, count in stacks.items():
        kinds[kind_of(stack)] += count
    hooks = sum(count for stack, count in stacks.items() if any(hook in stack.rpartition(";")[2] for hook in HOOKS))
    shares = {kind: round(100 * count / every, 1) for kind, count in kinds.most_common()}
    return {
        "ms_per_step": round(1000 * sampled["cpu_s"] / sampled["batches"], 2),
        "percent": shares,
        "of_which_psserve_hooks_percent": round(100 * hooks / every, 1),
    }


def within(loop: str, stacks: dict[str, int]) -> dict[str, int]:
    """The stacks of a scheduler's loop; none in another process."""
    return {stack: count for stack, count in stacks.items() if loop in stack}


def kind_of(stack: str) -> str:
    """What a stack is about."""
    return next((kind for kind, mark in KINDS if mark in stack), REST)


if __name__ == "__main__":
    sys.exit(main())
