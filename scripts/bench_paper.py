"""The papers' own workloads on two cores: PrefillShare's four agents, and ICaRus' adapters.

    python scripts/bench_paper.py                                     docs/results/paper-react.json, 23 minutes at most
    python scripts/bench_paper.py --workload four-agents-reflexion    docs/results/paper-reflexion.json, likewise
    python scripts/bench_paper.py --modules 8 --out eight.json        eight agents
    python scripts/bench_paper.py --adapters --out lora.json          modules are adapters: one server decodes for all
    python scripts/bench_paper.py --workload icarus                   docs/results/paper-icarus.json, 8 minutes at most
    python scripts/bench_paper.py --resume                            go on with what was interrupted, or out of time

All is done by `psserve bench compare`. Four agents: sessions arrive faster than any system can take them, and each
system runs under several limits of sessions at a time, in turns. ICaRus: a closed loop first, to learn how many
sessions a second stock multi-LoRA serving can take at most; both systems then get sessions at that rate.
docs/benchmarks.md tells how lengths and KV pools follow from the paper's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench_cpu import SHAPE, cpu_split
from measuring.adapters import make_zoo
from measuring.comparison import (
    ROOT,
    add_options,
    bench_zoo,
    compare,
    comparison,
    keep,
    measurement,
    module_names,
    note_call,
    parsed,
)

from psserve.bench.result import read_results
from psserve.bench.workloads.choice import make_sessions
from psserve.bench.workloads.workload import Length, Preset, preset_workload

ANSWERS = 2
"""Answers are so many times shorter than the scale has them: half of the papers' GPUs decode and do nothing else, and
here the same cores do both."""
SHAPE_HERE = SHAPE | {"max_position_embeddings": 8_192}
"""That of the CPU table, with room for the longest contexts of eight agents."""
RANK = 16
PAGE = 16
SLACK = 1.1
"""A context may be so many times as long as it should be: answers are text, and its tokens are not always as many."""
FIRST_REQUESTS = 2_048
"""Tokens for which every context has room: by its first requests the load generator learns how long words are."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What a workload is run with, where the user says nothing."""

    systems: str
    modules: int
    limits: str | None
    """Sessions at a time."""
    rate: float | None
    """Sessions a second; None: as many as the baseline can take."""
    sessions: int
    repeats: int
    scale: float
    held: int
    """Sessions of which each KV pool of the baseline holds the whole contexts."""
    minutes: float
    out: str


FOUR_AGENTS = Experiment(
    systems="one-pool,shared,disaggregated",
    modules=4,
    limits="5,12",
    rate=1.0,
    sessions=12,
    repeats=3,
    scale=0.25,
    held=4,
    minutes=23,
    out="paper-react.json",
)
EXPERIMENTS: dict[Preset, Experiment] = {
    "four-agents-react": FOUR_AGENTS,
    "four-agents-reflexion": replace(FOUR_AGENTS, sessions=8, out="paper-reflexion.json"),
    "icarus": Experiment(
        systems="shared,lora",
        modules=8,
        limits=None,
        rate=None,
        sessions=40,
        repeats=2,
        scale=0.25,
        held=6,
        minutes=7.5,
        out="paper-icarus.json",
    ),
}
"""Limits and `held` of the four agents are a tenth of the paper's, whose baseline's GPUs hold some 40 sessions."""
PEAK_LIMITS = "4,12"
"""Sessions at a time at which the baseline's peak is looked for."""


def main() -> int:
    started = time.monotonic()
    options, folder = measurement(parse, folder_of)
    zoo = experiment_zoo(options)
    note_call(options, folder)
    peak: dict[str, float] = {}
    if options.rate is None:
        peak = find_peak(options, zoo, folder / "peak")
        options.rate = max(peak.values())
    left = 60 * options.minutes - (time.monotonic() - started)
    code = compare(new_comparison(options, zoo, folder), max(60.0, left))
    if (folder / "report.json").exists():
        keep(folder, options.out, lambda results: {"cpu_split": cpu_split(results), "baseline_peak": peak or None})
    return code


def parse(arguments: list[str]) -> argparse.Namespace:
    """The user's options, and the experiment's values where he says nothing."""
    parser = argparse.ArgumentParser(description="The papers' own workloads on two cores.")
    nothing = dict.fromkeys(("modules", "systems", "concurrency", "sessions", "repeats", "out"))
    add_options(parser, work=ROOT / "build" / "bench-paper", **nothing)
    add = parser.add_argument
    add("--workload", choices=list(EXPERIMENTS), default="four-agents-react", help="[default: %(default)s]")
    add("--rate", type=float, help="sessions that arrive a second [default: 1, or the baseline's peak]")
    add("--scale", type=float, help="of the preset's lengths [default: 0.25]")
    add("--adapters", action="store_true", help="modules are LoRA adapters, not fine-tunes of all weights")
    add("--all-cores", action="store_true", help="four agents: servers of both kinds share all cores")
    add("--minutes", type=float, help="most that it may take; what is done by then is reported [default: 23 or 7.5]")
    options = parsed(parser, arguments)
    experiment = EXPERIMENTS[options.workload]
    options.adapters |= "lora" in experiment.systems.split(",")
    options.concurrency = options.concurrency or experiment.limits
    options.out = options.out or ROOT / "docs" / "results" / experiment.out
    options.held = experiment.held
    for name in ("systems", "modules", "rate", "sessions", "repeats", "scale", "minutes"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(experiment, name))
    return options


def folder_of(options: argparse.Namespace) -> Path:
    return Path(options.work / f"{options.workload}-{options.modules}{'-adapters' if options.adapters else ''}")


def experiment_zoo(options: argparse.Namespace) -> Path:
    """A zoo of random weights, built unless it is there already."""
    if not options.adapters:
        return bench_zoo(options.work / f"zoo-{options.modules}", options.modules, SHAPE_HERE)
    base = bench_zoo(options.work / "zoo-0", 0, SHAPE_HERE) / "base"
    return make_zoo(options.work / f"zoo-{options.modules}-adapters", options.modules, base, RANK).path


def new_comparison(options: argparse.Namespace, zoo: Path, folder: Path) -> list[str]:
    """The arguments of `psserve bench compare`. The first session of each run is warm-up."""
    rate = () if options.rate is None else ("--rate", f"{options.rate:.3g}")
    return comparison(options, zoo, folder, *load_arguments(options), *rate)


def find_peak(options: argparse.Namespace, zoo: Path, folder: Path) -> dict[str, float]:
    """Sessions a second of stock multi-LoRA serving in a closed loop, by sessions at a time.

    With --resume the search goes on where it was interrupted; one that is whole is only read.
    """
    asked = argparse.Namespace(**vars(options) | {"systems": "lora", "concurrency": PEAK_LIMITS, "repeats": 1})
    asked.sessions = max(4, options.sessions // 2)
    if compare(comparison(asked, zoo, folder, *load_arguments(asked))) != 0:
        raise SystemExit("the baseline's peak was not found: what was done is kept; go on with --resume")
    return peak_rates(read_results(folder / "results.jsonl"))


def peak_rates(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Sessions at a time -> sessions a second."""
    told: list[Mapping[str, Any]] = [line["psserve"] for line in lines if not line["psserve"]["partial"]]
    return {str(ours["load"]["concurrency"]): round(ours["sessions"]["session_throughput"], 4) for ours in told}


def load_arguments(options: argparse.Namespace) -> tuple[str, ...]:
    """Workload, and KV pools that follow from its lengths."""
    output = preset_workload(options.workload, module_names(options.modules)).output
    apart = () if options.all_cores or options.workload == "icarus" else ("--cores-by-role",)
    shorter = Length(output.low / ANSWERS, output.high / ANSWERS, output.sigma)
    context = longest_context(options)
    return (
        *apart,
        *("--device", "cpu", "--workload", options.workload, "--scale", str(options.scale), "--warmup", "1"),
        *("--output-tokens", str(shorter), "--kv-tokens", str(kv_tokens(options))),
        *("--context-length", str(max(FIRST_REQUESTS, pages(context * SLACK))), "--page-size", str(PAGE)),
    )


def kv_tokens(options: argparse.Namespace) -> int:
    """KV tokens of each system: pools of the baseline that hold `held` sessions each.

    Four agents have a prefill and a decode server each in the baseline. The baseline of adapters is one server: it has
    to hold a session's context for each adapter that reads it, here all calls' prompts.
    """
    if options.workload != "icarus":
        return 2 * options.modules * pages(options.held * longest_context(options))
    return pages(options.held * sum(sum(prompts) for prompts in all_prompts(options)) / len(all_prompts(options)))


def longest_context(options: argparse.Namespace) -> int:
    """Tokens of the longest prompt with its answer."""
    return max(max(prompts) for prompts in all_prompts(options))


def all_prompts(options: argparse.Namespace) -> list[list[int]]:
    """Of each session the tokens of its prompts, answers included."""
    changes = {"scale": options.scale, "sessions": options.sessions}
    made = make_sessions(preset_workload(options.workload, module_names(options.modules), **changes))
    found = []
    for session in made:
        context, prompts = session.system_tokens, []
        for step in session.steps:
            context += step.new_tokens + step.calls[0].output_tokens // ANSWERS
            prompts.append(context)
        found.append(prompts)
    return found


def pages(tokens: float) -> int:
    """The next whole number of pages, in tokens."""
    return -int(-tokens // PAGE) * PAGE


if __name__ == "__main__":
    sys.exit(main())
