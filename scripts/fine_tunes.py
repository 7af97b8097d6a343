"""Compares fine-tunes on the demo tasks: psserve's rule, ICaRus', and ordinary fine-tuning, at any LoRA rank.

    python scripts/fine_tunes.py --out a.json --share 0.25                             a quarter of the steps, rank 16
    python scripts/fine_tunes.py --out a.json --share 0.25 --tasks code --ranks 8 64   more ranks, into the same file
    python scripts/fine_tunes.py --out b.json --base wide --ranks 8 16 64 128 0        over a base of 14M parameters
    python scripts/fine_tunes.py --out c.json --base tiny --work /tmp/c                two steps of all, to try it

One after another, on one thread; another base on all cores. Scores are kept in --work, by default a folder for each
--out: a run that is cut short is repeated, and goes on after what it finished; the document has all that is there.
Calls with the same --work need the same base, --share and --items for a task. docs/demo-zoo.md tells what was found.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from accuracy import CONFIGURATIONS, phases, trained_base
from long_training import exit_status, note

if TYPE_CHECKING:
    from psserve.demo.demo_zoo import DemoConfig

METHODS = ("cache-conditioned", "icarus", "full")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options; with those left out the demo zoo's steps are done in full."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", type=Path, default=Path("model_zoo"), help="whose base is fine-tuned")
    parser.add_argument("--base", choices=list(CONFIGURATIONS), default="zoo", help="another base, trained first")
    parser.add_argument("--base-share", type=float, default=1.0, help="of the steps of that base's training")
    parser.add_argument(
        "--work", type=Path, help="data, fine-tunes and scores [default: build/fine-tunes/NAME of --out]"
    )
    parser.add_argument("--out", type=Path, required=True, help="the document, with all scores in --work")
    parser.add_argument("--tasks", nargs="+", choices=["math", "code", "tools"], default=["code", "tools", "math"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--ranks", type=int, nargs="+", default=[16], help="0: all weights")
    parser.add_argument(
        "--lora-rate", type=float, help="learning rate of adapters, in those of all weights [default: the demo zoo's]"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the steps of each fine-tune")
    parser.add_argument("--items", type=int, help="held-out items of each task [default: the demo zoo's]")
    options = parser.parse_args(arguments)
    options.work = options.work or Path("build/fine-tunes") / options.out.stem
    return options


def configuration(options: argparse.Namespace) -> DemoConfig:
    """What the options make of the demo zoo's, or of another base's."""
    config = CONFIGURATIONS[options.base]()
    base = {
        name: replace(phase, steps=shortened(phase.steps, options.base_share)) for name, phase in phases(config).items()
    }
    steps: Mapping[str, int] = {
        task: shortened(every, options.share) for task, every in config.finetuning_steps.items()
    }
    config = replace(config, tasks=tuple(options.tasks), finetuning_steps=steps, **base)
    return replace(config, test_items=options.items) if options.items else config


def shortened(steps: int, share: float) -> int:
    """That share of steps, at least one."""
    return max(1, round(share * steps))


def compare(options: argparse.Namespace) -> None:
    """Train and score, and write the document anew after each."""
    import torch

    from psserve.bench.machine import describe
    from psserve.demo.accuracy import LORA_RATE, about
    from psserve.demo.fine_tunes import found_in, jobs_of, scores_of
    from psserve.zoo import Zoo

    config = configuration(options)
    base = Zoo.open(options.zoo).base.path if options.base == "zoo" else trained_base(options.work, config)
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    jobs = jobs_of(
        base, options.work, config, options.methods, options.ranks, options.seeds, options.lora_rate or LORA_RATE
    )
    for score in scores_of(jobs, note):
        told = about(config, score.base_fingerprint)
        del told["steps"], told["test_items"]  # of each fine-tune, because calls may differ in them
        document = {"machine": describe(), "base": options.base} | told
        document |= {"fine_tunes": [asdict(score) for score in found_in(options.work)]}
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(exit_status(partial(compare, parse(sys.argv[1:]))))
