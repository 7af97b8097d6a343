"""Builds the demo zoo from seeds: tokenizer, base and modules. docs/demo-zoo.md says what is in it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from long_training import exit_status, note

if TYPE_CHECKING:
    from psserve.demo.demo_zoo import DemoConfig


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options; those left out are the committed zoo's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoo", type=Path, help="where the zoo is made; must not exist")
    parser.add_argument("--work", type=Path, default=Path("build/demo-zoo"), help="data files, and the base's state")
    parser.add_argument("--pretrain-steps", type=int, help="of each phase")
    parser.add_argument("--finetune-steps", type=int)
    parser.add_argument("--learning-rate", type=float, help="of the modules")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--hidden-size", type=int)
    parser.add_argument("--tasks", nargs="+", choices=["math", "code", "tools"])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def build(options: argparse.Namespace) -> None:
    """Build what the options say."""
    from psserve.demo.demo_zoo import build_demo_zoo

    zoo = build_demo_zoo(options.zoo, options.work, configuration(options), note)
    note(f"{zoo.path}: complete")


def configuration(options: argparse.Namespace) -> DemoConfig:
    """The options as a DemoConfig."""
    from psserve.demo import demo_zoo
    from psserve.demo.tasks import TASKS

    config = demo_zoo.DemoConfig(seed=options.seed)
    phases = {name: replace(getattr(config, name), seed=options.seed) for name in ("copying", "pretraining", "reading")}
    if options.pretrain_steps:
        phases = {name: replace(phase, steps=options.pretrain_steps) for name, phase in phases.items()}
    shape = {"num_hidden_layers": options.layers, "hidden_size": options.hidden_size}
    chosen = {
        "finetuning_steps": dict.fromkeys(TASKS, options.finetune_steps) if options.finetune_steps else None,
        "learning_rate": options.learning_rate,
        "tasks": tuple(options.tasks) if options.tasks else None,
        "shape": {name: value for name, value in shape.items() if value},
    }
    return replace(config, **phases, **{name: value for name, value in chosen.items() if value})


if __name__ == "__main__":
    sys.exit(exit_status(partial(build, parse(sys.argv[1:]))))
