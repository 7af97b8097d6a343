"""The accuracy table with a base of 24 million parameters, trained on this machine's GPU. No network.

    python scripts/gpu_accuracy.py                             docs/results/accuracy-NAME.json (.md, .png, .svg)
    python scripts/gpu_accuracy.py --tiny --out /tmp/accuracy  a dry run of all of it, on a CPU too

The demo zoo's tasks, corpus and order of work (docs/demo-zoo.md) with a wider and deeper base and larger batches.
Everything is kept in --work: a run that is cut short is repeated, and goes on after the base and the cells of the table
that it finished. psserve need not be installed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from long_training import exit_status, note
from measuring.installation import importable

from psserve.bench.machine import gpus, slug

if TYPE_CHECKING:
    from psserve.demo.demo_zoo import DemoConfig

ROOT = Path(__file__).resolve().parent.parent
SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "initializer_range": 0.02,
}
TINY = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}


def main() -> int:
    options = parse(sys.argv[1:])
    if not (options.tiny or gpus()):
        print("gpu-accuracy: error: no NVIDIA GPU here: --tiny tries the script without one", file=sys.stderr)
        return 2
    with importable(ROOT):
        return exit_status(partial(compare, options))


def compare(options: argparse.Namespace) -> None:
    """Make the table, write it and print it."""
    from psserve.demo.accuracy import accuracy_runs
    from psserve.training.accuracy_report import markdown, write_report
    from psserve.training.compare import summary

    config = tiny() if options.tiny else large()
    table = summary(accuracy_runs(base(options.work, config), options.work, config, options.seeds, note))
    found = gpus()
    machine = slug(found[0].split(",")[0]) if found else "cpu"
    write_report(table | {"machine": machine, "base": config.shape}, options.out, f"accuracy-{machine}")
    print(markdown(table))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The accuracy table on a GPU.")
    parser.add_argument("--work", type=Path, help="can be resumed [default: build/gpu-accuracy, build/tiny-accuracy]")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tiny", action="store_true", help="two steps of everything")
    options = parser.parse_args(arguments)
    options.work = options.work or ROOT / "build" / ("tiny-accuracy" if options.tiny else "gpu-accuracy")
    return options


def large() -> DemoConfig:
    """Sixteen times the tokens a step of the demo zoo's base, twice the steps of its modules."""
    from psserve.demo.demo_zoo import DemoConfig
    from psserve.demo.pretrain import PretrainConfig

    return DemoConfig(
        copying=PretrainConfig(steps=2000, batch_size=64, learning_rate=1e-3),
        pretraining=PretrainConfig(steps=10_000, batch_size=32, learning_rate=1e-3),
        reading=PretrainConfig(steps=5000, batch_size=32, learning_rate=5e-4),
        finetuning_steps={"math": 8000, "code": 2000, "tools": 5000},
        finetuning_batch=16,
        learning_rate=5e-4,
        training_items=100_000,
        shape=SHAPE,
    )


def tiny() -> DemoConfig:
    """For a dry run."""
    from psserve.demo.demo_zoo import DemoConfig

    few = replace(DemoConfig().pretraining, steps=2)
    return DemoConfig(
        copying=few,
        pretraining=few,
        reading=few,
        finetuning_steps={"math": 2, "code": 2, "tools": 2},
        training_items=8,
        test_items=4,
        tokenizer_texts=1000,
        shape=TINY,
    )


def base(work: Path, config: DemoConfig) -> Path:
    """The base's checkpoint, trained unless it was before."""
    from psserve.demo.demo_zoo import make_base

    made = work / "base"
    if not made.exists():
        making = work / ".base"
        shutil.rmtree(making, ignore_errors=True)
        make_base(making, config, note, work)
        making.rename(made)
    return made


if __name__ == "__main__":
    sys.exit(main())
