"""Trains and compares base, full fine-tuning, naive sharing and PrefillShare on the demo tasks; writes the table.

    python scripts/accuracy.py                   over the base of a zoo: docs/results/accuracy.json (.md, .png, .svg)
    python scripts/accuracy.py --base large      over one of 24 million parameters, trained first: accuracy-GPU.json
    python scripts/accuracy.py --base tiny --seeds 0 --out /tmp/accuracy     a dry run of that: two steps of everything

Everything is kept in --work: a run that is cut short is repeated, and goes on after what it finished.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from long_training import exit_status, note

if TYPE_CHECKING:
    from psserve.demo.demo_zoo import DemoConfig
    from psserve.demo.pretrain import PretrainConfig

SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "initializer_range": 0.02,
}
MEDIUM = SHAPE | {"hidden_size": 384, "intermediate_size": 1152, "num_attention_heads": 6}
"""14 million parameters, 27 MiB: what a borrowed GPU is sent and sends back can hold it (gpu_accuracy.py)."""
TINY = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options; those left out are the committed table's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", type=Path, default=Path("model_zoo"), help="whose base is fine-tuned")
    parser.add_argument("--base", choices=list(CONFIGURATIONS), default="zoo", help="another base, trained first")
    parser.add_argument("--work", type=Path, help="data and modules [default: build/accuracy, or build/BASE-accuracy]")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=["math", "code", "tools"], default=["math", "code", "tools"])
    parser.add_argument("--steps", type=int, help="of each fine-tuning [default: the demo zoo's]")
    parser.add_argument("--learning-rate", type=float, help="of each fine-tuning [default: the demo zoo's]")
    parser.add_argument("--processes", type=int, help="trainings at a time [default: one a core, or one for a GPU]")
    options = parser.parse_args(arguments)
    options.work = options.work or Path("build") / ("accuracy" if options.base == "zoo" else f"{options.base}-accuracy")
    return options


def compare(options: argparse.Namespace) -> None:
    """Make the table, write it and print it."""
    from psserve.bench.machine import gpus, slug
    from psserve.demo.accuracy import about, accuracy_runs
    from psserve.demo.pool import all_cores
    from psserve.demo.tasks import TASKS
    from psserve.training.accuracy_report import accuracy_markdown, write_accuracy
    from psserve.training.compare import summary
    from psserve.zoo import Zoo

    chosen = {
        "finetuning_steps": options.steps and dict.fromkeys(TASKS, options.steps),
        "learning_rate": options.learning_rate,
    }
    config = replace(CONFIGURATIONS[options.base](), tasks=tuple(options.tasks))
    config = replace(config, **{name: value for name, value in chosen.items() if value})
    processes = options.processes or (all_cores() if options.base == "zoo" else 1)
    if options.base == "zoo":
        base = Zoo.open(options.zoo).base
        path, name, told = base.path, "accuracy", about(config, base.fingerprint)
    else:
        machine = slug(found[0].split(",")[0]) if (found := gpus()) else "cpu"
        path, name = trained_base(options.work, config), f"accuracy-{machine}"
        told = {"machine": machine, "base": config.shape}
    table = summary(accuracy_runs(path, options.work, config, options.seeds, note, processes))
    write_accuracy(table | told, options.out, name)
    print(accuracy_markdown(table))


def committed() -> DemoConfig:
    """The demo zoo's."""
    from psserve.demo.demo_zoo import DemoConfig

    return DemoConfig()


def large() -> DemoConfig:
    """Sixteen times the tokens a step of the demo zoo's base, twice the steps of its modules: for a GPU."""
    from psserve.demo.pretrain import PretrainConfig

    return replace(
        committed(),
        copying=PretrainConfig(steps=2000, batch_size=64, learning_rate=1e-3),
        pretraining=PretrainConfig(steps=10_000, batch_size=32, learning_rate=1e-3),
        reading=PretrainConfig(steps=5000, batch_size=32, learning_rate=5e-4),
        finetuning_steps={"math": 8000, "code": 2000, "tools": 5000},
        finetuning_batch=16,
        learning_rate=5e-4,
        training_items=100_000,
        shape=SHAPE,
    )


def medium() -> DemoConfig:
    """As `large`, of another shape."""
    return replace(large(), shape=MEDIUM)


def wide() -> DemoConfig:
    """The shape of `medium` in the demo zoo's schedule, at half its rates: some hours of two cores that have AMX."""
    zoo = committed()
    halved = {name: replace(phase, learning_rate=phase.learning_rate / 2) for name, phase in phases(zoo).items()}
    return replace(zoo, shape=MEDIUM, learning_rate=zoo.learning_rate / 2, **halved)


def phases(config: DemoConfig) -> dict[str, PretrainConfig]:
    """Those of a base's training, by name."""
    return {name: getattr(config, name) for name in ("copying", "pretraining", "reading")}


def tiny() -> DemoConfig:
    """For a dry run."""
    few = replace(committed().pretraining, steps=2)
    steps = {"math": 2, "code": 2, "tools": 2}
    sizes = {"training_items": 8, "test_items": 4, "tokenizer_texts": 1000}
    return replace(committed(), copying=few, pretraining=few, reading=few, finetuning_steps=steps, shape=TINY, **sizes)


CONFIGURATIONS: dict[str, Callable[[], DemoConfig]] = {
    "zoo": committed,
    "wide": wide,
    "medium": medium,
    "large": large,
    "tiny": tiny,
}


MADE_OF = "made-of.json"
"""In a trained base: what it was made of."""


def trained_base(work: Path, config: DemoConfig) -> Path:
    """The base's checkpoint, trained unless it was before. Raises TrainingError if that was of something else."""
    from psserve.demo.demo_zoo import make_base
    from psserve.errors import TrainingError

    made, made_of = work / "base", made_of_base(config)
    if not made.exists():
        making = work / ".base"
        shutil.rmtree(making, ignore_errors=True)
        make_base(making, config, note, work)
        (making / MADE_OF).write_text(made_of)
        making.rename(made)
    told = made / MADE_OF
    if not told.exists() or told.read_text() != made_of:
        raise TrainingError(
            f"{made}: not known to be made as --base and --base-share say now: move it away, or give those of then"
        )
    return made


def made_of_base(config: DemoConfig) -> str:
    """What of the configuration its base depends on, as text."""
    steps = {name: asdict(phase) for name, phase in phases(config).items()}
    for phase in steps.values():
        del phase["dtype"]  # follows from the machine
    of = steps | {"shape": config.shape, "tokenizer_texts": config.tokenizer_texts, "seed": config.seed}
    return json.dumps(of, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(exit_status(partial(compare, parse(sys.argv[1:]))))
