"""How well fine-tunes answer the demo tasks, by how they are trained and by LoRA rank, with the same data and budget.

method              prompt's KV from   KV of the answer from
full                fine-tune          fine-tune     ordinary fine-tuning, its own prefill
cache-conditioned   base               fine-tune     what psserve serves
icarus              base               base          ICaRus' rule, for adapters alone
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter

from psserve.demo.accuracy import LORA_RATE, check_work
from psserve.demo.demo_zoo import DemoConfig, Note, finetune_config, train_file, zoo_over
from psserve.demo.pool import progress_in
from psserve.demo.tasks import TASKS, Task, held_out_items, training_items
from psserve.training.answers import Answerer, pair_answerer
from psserve.training.config import FinetuneConfig, LoraConfig, Method
from psserve.training.data import write_conversations
from psserve.training.finetune import finetune
from psserve.training.icarus import generate_icarus_batch, load_icarus
from psserve.training.reference import ModelPair, load_pair
from psserve.training.run_folder import RunFolder
from psserve.training.scorers import SCORERS, evaluate
from psserve.zoo import Zoo
from psserve.zoo.adding.incoming import read_training
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from psserve.zoo.disk.manifest import TrainingRecord, hash_file
from psserve.zoo.disk.storage import write_atomically


@dataclass(frozen=True)
class FineTuneScore:
    """What was found of one fine-tune. Accuracies are from 0 to 1, the loss is in nats per answer token."""

    base_fingerprint: str
    seed: int
    task: str
    method: Method
    rank: int
    """Of the adapter; 0: all weights were trained."""
    steps: int
    items: int
    accuracy: float
    loss: float
    lora_rate: float = LORA_RATE
    """Of an adapter: its peak learning rate, in those of a fine-tune of all weights."""
    other_rule: float | None = None
    """Accuracy of an adapter by ICaRus' rule if it were answered by psserve's: the KV of its answers is its own."""


_SCORE = TypeAdapter(FineTuneScore)


@dataclass(frozen=True)
class FineTuneJob:
    """One fine-tune to make and to score. Files are in `work`, which the jobs of a task and seed share."""

    base: Path
    work: Path
    config: DemoConfig
    task: Task
    method: Method
    rank: int
    lora_rate: float = LORA_RATE

    @property
    def name(self) -> str:
        rate = "" if self.lora_rate == LORA_RATE or not self.rank else f"-{self.lora_rate:g}"
        return f"{self.method}-{self.rank or 'all'}{rate}".replace(".", "_")

    @property
    def result(self) -> Path:
        """Where the score is kept."""
        return self.work / f"{self.name}.json"

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.work / "runs" / self.name)

    @cached_property
    def zoo(self) -> Zoo:
        return zoo_over(self.work / "zoo", self.base)

    def finetune_config(self) -> FinetuneConfig:
        """Data, seed, steps and batch are the same for all, and so is the learning rate of all weights."""
        options = finetune_config(self.task, self.work, self.config)
        return replace(
            options,
            name=self.name,
            method=self.method,
            lora=LoraConfig(self.rank) if self.rank else None,
            learning_rate=(self.lora_rate if self.rank else 1.0) * options.peak_learning_rate,
            examples=(),
            dtype="auto",
            out=self.run.path,
            resume=self.run.description.exists(),
        )


def scores_of(jobs: Sequence[FineTuneJob], note: Note) -> Iterator[FineTuneScore]:
    """Train and score one after another. What was found before is not made again, and runs are resumed."""
    for job in jobs:
        weights = [hash_file(shard) for shard in read_checkpoint(job.base).shards]
        check_work(job.work, f"{weights} {replace(job.config, tasks=())}")
        if not job.result.exists():
            note(f"{job.task.name}, {job.name}, seed {job.config.seed}: {job.finetune_config().steps} steps")
            with progress_in(job.work / "log"):
                train(job)
            write_atomically(job.result, _SCORE.dump_json(score(job)))
        found = _SCORE.validate_json(job.result.read_bytes())
        note(f"{found}")
        yield found


def train(job: FineTuneJob) -> None:
    """Train it unless it is there."""
    if record_of(job) is not None:
        return
    data = train_file(job.work, job.task.name)
    if not data.exists():
        write_conversations(data, training_items(job.task.name, job.config.training_items, job.config.seed))
    finetune(job.zoo, job.finetune_config())


def record_of(job: FineTuneJob) -> TrainingRecord | None:
    """Its training record, None if it is not trained yet."""
    if job.method == "icarus":
        return read_training(job.run.adapter)
    return next((module.training for module in job.zoo.modules() if module.name == job.name), None)


def score(job: FineTuneJob) -> FineTuneScore:
    """Let it answer held-out items, the same ones for every seed."""
    items = held_out_items(job.task.name, job.config.test_items)

    def accuracy(answerer: Answerer) -> float:
        return evaluate(answerer, items, SCORERS[job.task.scorer], job.task.longest_answer).share

    record = record_of(job)
    assert record is not None, "training ends with a record"
    pair, other = load_job_pair(job), None
    if job.method == "icarus":
        own = accuracy(pair_answerer(job.zoo, pair, generate=generate_icarus_batch))
        pair.module.set_attn_implementation("sdpa")
        other = accuracy(pair_answerer(job.zoo, pair))
    else:
        own = accuracy(pair_answerer(job.zoo, pair, base_share=float(job.method != "full")))
    return FineTuneScore(
        base_fingerprint=record.base_fingerprint,
        seed=job.config.seed,
        task=job.task.name,
        method=job.method,
        rank=job.rank,
        steps=int(record.metrics["steps"]),
        items=len(items),
        accuracy=own,
        loss=round(record.metrics["loss"], 4),
        lora_rate=job.lora_rate,
        other_rule=other,
    )


def load_job_pair(job: FineTuneJob) -> ModelPair:
    """The base and its fine-tune."""
    if job.method == "icarus":
        return load_icarus(job.zoo.base, job.run.adapter)
    return load_pair(job.zoo, job.name)


def jobs_of(
    base: Path,
    work: Path,
    config: DemoConfig,
    methods: Sequence[Method],
    ranks: Sequence[int],
    seeds: Sequence[int],
    lora_rate: float = LORA_RATE,
) -> list[FineTuneJob]:
    """Those of one task after another, so that what is compared is found together. Rank 0: all weights."""
    return [
        FineTuneJob(
            base, work / f"seed-{seed}" / task, replace(config, seed=seed), TASKS[task], method, rank, lora_rate
        )
        for task in config.tasks
        for seed in seeds
        for rank in ranks
        for method in methods
        if rank or method != "icarus"
    ]


def found_in(work: Path) -> list[FineTuneScore]:
    """All scores that were kept in `work`."""
    found = [_SCORE.validate_json(path.read_bytes()) for path in sorted(work.glob("seed-*/*/*-*.json"))]
    order = list(TASKS)
    return sorted(found, key=lambda each: (order.index(each.task), each.seed, each.rank, each.method, each.lora_rate))
