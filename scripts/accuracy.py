"""Trains and compares base, full fine-tuning, naive sharing and PrefillShare on the demo tasks; writes the table."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from long_training import exit_status, note


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options; those left out are the committed table's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, default=Path("model_zoo"), help="whose base is fine-tuned")
    parser.add_argument("--work", type=Path, default=Path("build/accuracy"), help="data and modules; can be resumed")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=["math", "code", "tools"], default=["math", "code", "tools"])
    parser.add_argument("--steps", type=int, help="of each fine-tuning [default: the demo zoo's]")
    parser.add_argument("--learning-rate", type=float, help="of each fine-tuning [default: the demo zoo's]")
    parser.add_argument("--processes", type=int, help="trainings at a time [default: one a core]")
    return parser.parse_args(arguments)


def compare(options: argparse.Namespace) -> None:
    """Make the table, write it and print it."""
    from psserve.demo.accuracy import about, accuracy_runs
    from psserve.demo.demo_zoo import DemoConfig
    from psserve.demo.pool import all_cores
    from psserve.demo.tasks import TASKS
    from psserve.training.accuracy_report import markdown, write_report
    from psserve.training.compare import summary
    from psserve.zoo import Zoo

    config = DemoConfig(tasks=tuple(options.tasks))
    chosen = {
        "finetuning_steps": options.steps and dict.fromkeys(TASKS, options.steps),
        "learning_rate": options.learning_rate,
    }
    config = replace(config, **{name: value for name, value in chosen.items() if value})
    base = Zoo.open(options.zoo).base
    processes = options.processes or all_cores()
    table = summary(accuracy_runs(base.path, options.work, config, options.seeds, note, processes))
    write_report(table | about(config, base.fingerprint), options.out)
    print(markdown(table))


if __name__ == "__main__":
    sys.exit(exit_status(partial(compare, parse(sys.argv[1:]))))
