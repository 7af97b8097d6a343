"""The accuracy table of the demo tasks: several seeds, and both ways of fine-tuning with the same data and budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from psserve.training.answers import Answerer, pair_answerer
from psserve.training.compare import Contest, TaskAccuracy, compare
from psserve.training.config import Method
from psserve.training.data import write_conversations
from psserve.training.demo_zoo import BASE_NAME, DemoConfig, Note, finetune_config, train_file
from psserve.training.finetune import finetune
from psserve.training.reference import Pair, load_pair
from psserve.training.scorers import SCORERS
from psserve.training.tasks import TASKS, Task, held_out_items, training_items
from psserve.zoo import Zoo

METHODS: dict[str, Method] = {"full": "full", "prefillshare": "cache-conditioned"}
"""Row of the table -> method of training."""


def accuracy_runs(
    base: Path, work: Path, config: DemoConfig, seeds: Sequence[int], note: Note
) -> list[dict[str, TaskAccuracy]]:
    """For each seed, fine-tune the checkpoint `base` for each task in both ways, and compare on held-out items.

    A seed decides the training items and the run. Modules are kept in `work`; those that are there are not trained
    again, so that an interrupted call can be repeated.
    """
    return [accuracy_run(base, work / f"seed-{seed}", replace(config, seed=seed), note) for seed in seeds]


def accuracy_run(base: Path, work: Path, config: DemoConfig, note: Note) -> dict[str, TaskAccuracy]:
    """One seed's results by task."""
    path = work / "zoo"
    zoo = Zoo.open(path) if path.exists() else Zoo.create(path, base.resolve(), BASE_NAME)
    results = {}
    for task in (TASKS[name] for name in config.tasks):
        train_both(zoo, task, work, config, note)
        results[task.name] = compare_task(zoo, task, config)
        note(f"seed {config.seed}, {task.name}: {results[task.name].rows}")
    return results


def train_both(zoo: Zoo, task: Task, work: Path, config: DemoConfig, note: Note) -> None:
    """Train what is not there yet: one module in each way."""
    trained = {module.name for module in zoo.modules()}
    write_conversations(train_file(work, task.name), training_items(task.name, config.training_items, config.seed))
    for row, method in METHODS.items():
        name = module_name(task, row)
        if name not in trained:
            note(f"seed {config.seed}: training {name}, {config.finetuning_steps} steps")
            options = finetune_config(task, work, config)
            finetune(zoo, replace(options, name=name, method=method, examples=(), out=work / "runs" / name))


def compare_task(zoo: Zoo, task: Task, config: DemoConfig) -> TaskAccuracy:
    """The held-out items are the same for every seed."""
    base, full = load_pair(zoo, module_name(task, "full"))
    trained = load_pair(zoo, module_name(task, "prefillshare")).module
    items = held_out_items(task.name, config.test_items)

    def make(pair: Pair, share: float) -> Answerer:
        return pair_answerer(zoo, pair, base_share=share)

    return compare(Contest(base, full, trained, items, SCORERS[task.scorer], task.longest_answer), make)


def module_name(task: Task, row: str) -> str:
    """What the module of a task and row is called."""
    return f"{task.name}-{row}"
