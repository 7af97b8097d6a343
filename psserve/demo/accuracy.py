"""The accuracy table of the demo tasks: several seeds, and each way of fine-tuning with the same data and budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from pydantic import TypeAdapter

from psserve.demo.demo_zoo import DemoConfig, Note, finetune_config, train_file, zoo_over
from psserve.demo.pool import progress_in, side_by_side
from psserve.demo.tasks import TASKS, Task, held_out_items, training_items
from psserve.errors import TrainingError
from psserve.training.answers import Answerer, pair_answerer
from psserve.training.compare import ENDS, SHARES, TRAINED, Contest, TaskAccuracy, compare_fine_tunes
from psserve.training.config import FinetuneConfig, LoraConfig
from psserve.training.data import write_conversations
from psserve.training.finetune import finetune
from psserve.training.reference import ModelPair, load_pair
from psserve.training.run_folder import RunFolder
from psserve.training.scorers import SCORERS
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from psserve.zoo.disk.manifest import hash_file
from psserve.zoo.disk.storage import write_atomically

LORA = LoraConfig(rank=16)
LORA_RATE = 3.0
"""An adapter's learning rate over that of all parameters: an update of low rank needs larger steps."""
_RESULT = TypeAdapter(TaskAccuracy)


@dataclass(frozen=True)
class TaskRun:
    """One cell of the table: a task with a seed. All its files are in `work`."""

    base: Path
    task: str
    work: Path
    config: DemoConfig
    thorough: bool = False
    """With a LoRA row and all shares of the curves: for one seed, since they take as long as the other rows."""

    @property
    def rows(self) -> tuple[str, ...]:
        """The modules to train."""
        return (*TRAINED, "lora") if self.thorough else TRAINED

    @property
    def shares(self) -> tuple[int, ...]:
        """Where to evaluate."""
        return SHARES if self.thorough else ENDS

    @property
    def result(self) -> Path:
        """Where the accuracies are kept."""
        return self.work / "accuracy.json"


def accuracy_runs(
    base: Path, work: Path, config: DemoConfig, seeds: Sequence[int], note: Note, processes: int = 1
) -> list[dict[str, TaskAccuracy]]:
    """For each seed, fine-tune the checkpoint `base` for each task in each way, and compare on held-out items.

    A seed decides the training items and the run; the first one's jobs are thorough. Modules and results are kept in
    `work`; what is there is not made again, and a run that was interrupted is resumed when the call is repeated.
    `processes` share the machine's cores.
    """
    jobs = [
        TaskRun(base, task, work / f"seed-{seed}" / task, replace(config, seed=seed), seed == seeds[0])
        for seed in seeds
        for task in config.tasks
    ]
    weights = [hash_file(shard) for shard in read_checkpoint(base).shards]
    check_work(work, f"{weights} {replace(config, seed=0, tasks=())}")
    note(f"{len(jobs)} jobs, {processes} at a time; each one's progress is in {work}/seed-N/TASK/log")
    kept = [(job, kept_result(job)) for job in jobs if job.result.exists()]
    made = side_by_side(run_job, [job for job in jobs if not job.result.exists()], processes)
    results = {}
    for job, result in chain(kept, made):
        note(f"seed {job.config.seed}, {job.task}: {result.rows}")
        results[job.config.seed, job.task] = result
    return [{task: results[seed, task] for task in config.tasks} for seed in seeds]


def about(config: DemoConfig, fingerprint: str) -> dict[str, object]:
    """What a table is of, for its document: the base with this fingerprint, and how it was fine-tuned."""
    return {
        "base_fingerprint": fingerprint,
        "test_items": config.test_items,
        "training_items": config.training_items,
        "steps": dict(config.finetuning_steps),
        "batch_size": config.finetuning_batch,
        "learning_rate": config.learning_rate,
    }


def check_work(work: Path, made_of: str) -> None:
    """Raise TrainingError if `work` has results of something else."""
    path = work / "made-of"
    if path.exists() and path.read_text() != made_of:
        raise TrainingError(f"{work}: was made of another base or configuration: move it away, or choose another place")
    work.mkdir(parents=True, exist_ok=True)
    write_atomically(path, made_of.encode())


def kept_result(job: TaskRun) -> TaskAccuracy:
    """What an earlier call has found."""
    return _RESULT.validate_json(job.result.read_bytes())


def run_job(job: TaskRun) -> TaskAccuracy:
    """Train and compare, and keep what is found."""
    job.work.mkdir(parents=True, exist_ok=True)
    with progress_in(job.work / "log"):
        result = train_and_compare(job)
    write_atomically(job.result, _RESULT.dump_json(result))
    return result


def train_and_compare(job: TaskRun) -> TaskAccuracy:
    """One cell of the table."""
    zoo = zoo_over(job.work / "zoo", job.base)
    task = TASKS[job.task]
    train_all(zoo, task, job)
    return compare_task(zoo, task, job)


def train_all(zoo: Zoo, task: Task, job: TaskRun) -> None:
    """Train what is not there yet: one module in each way."""
    trained = {module.name for module in zoo.modules()}
    write_conversations(
        train_file(job.work, task.name), training_items(task.name, job.config.training_items, job.config.seed)
    )
    for row in job.rows:
        if row not in trained:
            finetune(zoo, run_config(row, task, job))


def run_config(row: str, task: Task, job: TaskRun) -> FinetuneConfig:
    """The run that makes the module of a row: data, seed, steps and batch are the same for all rows."""
    folder = RunFolder(job.work / "runs" / row)
    options = replace(
        finetune_config(task, job.work, job.config),
        name=row,
        examples=(),
        out=folder.path,
        resume=folder.description.exists(),
    )
    if row == "full":
        return replace(options, method="full")
    if row == "lora":
        return replace(options, lora=LORA, learning_rate=LORA_RATE * options.peak_learning_rate)
    return options


def compare_task(zoo: Zoo, task: Task, job: TaskRun) -> TaskAccuracy:
    """The held-out items are the same for every seed."""
    base = load_pair(zoo, "full").base
    models = {row: load_pair(zoo, row).module for row in job.rows}
    items = held_out_items(task.name, job.config.test_items)

    def make(pair: ModelPair, share: float) -> Answerer:
        return pair_answerer(zoo, pair, base_share=share)

    scorer = SCORERS[task.scorer]
    contest = Contest(
        base, models["full"], models["prefillshare"], items, scorer, task.longest_answer, models.get("lora")
    )
    return compare_fine_tunes(contest, make, job.shares)
