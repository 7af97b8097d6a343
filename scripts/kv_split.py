"""How much of a device's KV cache the prefill pool should have: `python scripts/kv_split.py [--json FILE]`.

Launches a fleet of one prefill and four decode servers twice, with the same KV tokens in all: in equal pools, and as
psserve shares them out. Sessions take turns over the modules, more and more of them at a time; what counts is how many
still find their context cached at the prefill server. `--simulate` asks the simulator instead, which part serves the
most sessions a second with 1 to 8 modules. docs/fleet.md shows both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import tomli_w
from measuring.held import CONTEXT, HELD, KV_TOKENS, MODULES, PAGE, cached_part
from measuring.simulated import figures, published_setup

from psserve.bench import machine
from psserve.bench.simulator.asked import published
from psserve.bench.systems.fleet import launched
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.bench.workloads.workload import Length
from psserve.fleet.plan.fitting import pools
from psserve.fleet.plan.settings import pool_for

SESSIONS = (4, 5, 6, 8, 12, 14, 15, 16, 17, 18)
SIMULATED = ((1, 200_000, (8, 16)), (2, 250_000, (8, 16, 24)), (4, 360_000, (8, 16, 24)), (8, 720_000, (16, 32, 48)))
"""Modules, KV tokens in all (so many that each part leaves decode pools room for the longest session), sessions."""
PARTS = (None, 0.4, 0.5, 0.6, 0.7)
"""The prefill pool's; None: all pools are equal."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure or simulate how KV cache is best shared out.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON document to FILE too")
    parser.add_argument("--simulate", action="store_true", help="simulate, with 1 to 8 modules")
    parser.add_argument("--sessions", help="other numbers of sessions at a time, as in 4,8,16")
    options = parser.parse_args()
    counts = tuple(map(int, options.sessions.split(","))) if options.sessions else SESSIONS
    document = simulated() if options.simulate else measured(counts)
    text = json.dumps(document, indent=1)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)
    return 0


def measured(counts: Sequence[int]) -> dict[str, Any]:
    """Both fleets, one after the other: by number of sessions, what part of later turns' prompts was cached."""
    from psserve.zoo.synthetic.zoo import build_zoo

    even = KV_TOKENS // (1 + len(MODULES))
    shares = {
        "equal": {"prefill": even, "decode": even},
        "psserve": pools(KV_TOKENS, prefill=1, decode=len(MODULES), longest=pool_for(CONTEXT, PAGE)),
    }
    document: dict[str, Any] = {"machine": machine.describe(), "kv_tokens": KV_TOKENS, "splits": {}}
    with tempfile.TemporaryDirectory(prefix="psserve-split-") as folder:
        zoo = build_zoo(Path(folder) / "zoo", modules=MODULES)
        for name, sizes in shares.items():
            config = Path(folder) / f"{name}.toml"
            tables = {role: {"kv_tokens": size} for role, size in sizes.items()}
            settings = {"transfer": "nixl", "context_length": CONTEXT, "page_size": PAGE, **tables}
            config.write_text(tomli_w.dumps(settings))
            with launched(zoo.path, ["--device", "cpu", "--config", str(config)]) as fleet:
                cached = {}
                for count in counts:
                    cached[count] = asyncio.run(cached_part(fleet, zoo.base.path / "tokenizer.json", count))
                    note(f"{name}: {count} sessions: {cached[count]:.1%} of later turns' prompts are cached")
            held = max((count for count, part in cached.items() if part >= HELD), default=0)
            document["splits"][name] = {**sizes, "sessions_held": held, "cached": cached}
    return document


def simulated() -> dict[str, Any]:
    """All cases, and by part how near it comes to the sessions a second of the best part, at worst and in the mean."""
    cases = list(simulated_cases())
    near: dict[str, list[float]] = {}
    for case in cases:
        best = max(run["sessions_per_s"] for run in case["runs"].values())
        for part, run in case["runs"].items():
            near.setdefault(part, []).append(run["sessions_per_s"] / best)
    parts = {part: {"worst": round(min(found), 3), "mean": round(mean(found), 3)} for part, found in near.items()}
    return {"simulated": True, "of_the_best": parts, "cases": cases}


def simulated_cases() -> Iterator[Mapping[str, Any]]:
    """Each number of modules under each load, with each part: sessions a second, and the prefill pool's hit ratio."""
    basis = published("Qwen3-8B", "H200", None, None, None)
    choice = WorkloadChoice(preset="react", changes={"turns": Length(24, 24)})
    for modules, tokens, loads in SIMULATED:
        for load in loads:
            runs = {}
            for part in PARTS:
                prefill = int(tokens * part) if part is not None else tokens // (1 + modules)
                setup = replace(
                    published_setup("shared", modules, 1, modules, basis),
                    kv_tokens=prefill,
                    decode_kv_tokens=(tokens - prefill) // modules,
                    cores=1.0,
                )
                made = figures(setup, basis, choice, load, turnover=3)
                name = "equal" if part is None else f"{part:g}"
                runs[name] = {key: made[key] for key in ("sessions_per_s", "p95_session_s", "hit_ratio")}
            note(f"{modules} modules, {load} sessions: {runs}")
            yield {"modules": modules, "kv_tokens": tokens, "sessions": load, "runs": runs}


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
