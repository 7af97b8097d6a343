"""What lm-evaluation-harness found, for a module's manifest: the results file that `lm_eval --output_path` writes.

Recorded are shares of right answers: that a module generated greedily, or that it found likelier than the others which
an item offers. What is no such share (BLEU, perplexity), or cannot be told from another run's (no hash of the samples),
is left out by name; a file of nothing else is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from psserve.errors import DataError
from psserve.training.imported_results import Found, read_results
from psserve.zoo.disk.manifest import EvaluationRecord, Hash

GENERATED, CHOSEN = "generate_until", "multiple_choice"
COUNTED = {
    GENERATED: ("exact_match", "acc", "pass@1", "prompt_level_strict_acc", "prompt_level_loose_acc"),
    CHOSEN: ("acc", "acc_norm"),
}
"""The kinds of tasks that are recorded, and the metrics of lm-eval that are right answers over items there."""
READER = "local-completions"
"""lm-eval's kind of model that has a server read answers."""
LONGEST = 256
"""Tokens of an answer, where neither task nor model arguments say (lm-eval's default)."""


class RunConfig(BaseModel):
    """Whom lm-eval asked."""

    model: str
    model_args: str | dict[str, Any] = ""

    def argument(self, name: str) -> str | None:
        """One of the model arguments, which are `name=value,...` or an object."""
        arguments = self.model_args
        if isinstance(arguments, str):
            arguments = dict(part.partition("=")[::2] for part in arguments.split(","))
        return None if (value := arguments.get(name)) is None else str(value)


class Generation(BaseModel):
    """How answers were generated."""

    max_gen_toks: int | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    do_sample: bool = False


class TaskConfig(BaseModel):
    """A task."""

    output_type: str
    repeats: int = 1
    generation_kwargs: Generation = Generation()


class Samples(BaseModel):
    """How many items a task has, and how many of them were asked."""

    effective: int = Field(gt=0)


class LmEvalResults(BaseModel):
    """The file. It says much more, of which nothing is read."""

    results: dict[str, dict[str, Any]] = Field(min_length=1)
    configs: dict[str, TaskConfig]
    config: RunConfig
    samples: dict[str, Samples] = Field(alias="n-samples")
    chat_template: str | None = None
    """What rendered the prompts."""
    task_hashes: dict[str, Hash] = {}
    date: float = Field(gt=0)
    """Unix time of the start, in seconds."""
    total_evaluation_time_seconds: float = Field(default=0.0, ge=0)


def read_found(path: Path) -> Found:
    """What the file says, task by task. Raises DataError: not one of them has a share of right answers."""
    found = read_results(path, LmEvalResults, "lm-eval", "a results_*.json of lm_eval --output_path")
    records: list[EvaluationRecord] = []
    left_out: list[str] = []
    for task in found.results:
        try:
            records += list(task_records(path, found, task))  # a list first: of a task that fails nothing is kept
        except DataError as error:
            left_out.append(str(error))
    if not records:
        raise DataError("; ".join(left_out))
    end = found.date + found.total_evaluation_time_seconds
    return Found(found.config.argument("model"), found.date, end, records, tuple(left_out))


def task_records(path: Path, found: LmEvalResults, task: str) -> Iterator[EvaluationRecord]:
    """The shares of right answers of one task; DataError if it has none, or they are of something else."""
    where = f"{path}: task {task!r}"
    if task not in found.configs or task not in found.samples:
        raise DataError(f"{where}: no configuration or no number of samples: a group of tasks is none itself")
    config, items = found.configs[task], found.samples[task].effective
    if config.output_type not in COUNTED or config.repeats != 1:
        what = f"{config.output_type}, {config.repeats} a sample"
        raise DataError(f"{where}: {what}: only tasks with one answer, generated or chosen, are recorded")
    counted = COUNTED[config.output_type]
    longest = longest_generated(where, found, config) if config.output_type == GENERATED else read_alone(where, found)
    if task not in found.task_hashes:
        raise DataError(f"{where}: no hash of its samples: run lm_eval with --log_samples")
    shares = {key: value for key, value in found.results[task].items() if key.partition(",")[0] in counted}
    if not shares:
        raise DataError(f"{where}: none of its metrics is a share of right answers ({', '.join(counted)})")
    for key, share in shares.items():
        metric, _, chosen = key.partition(",")
        yield EvaluationRecord(
            date=int(found.date),
            scorer=f"lm-eval {task} {metric}" + ("" if chosen in ("", "none") else f" {chosen}"),
            data_hash=found.task_hashes[task],
            items=items,
            right=whole(share, items, f"{where}: {key}"),
            max_tokens=longest,
            how="fleet",
        )


def longest_generated(where: str, found: LmEvalResults, config: TaskConfig) -> int:
    """Tokens that an answer might have; DataError if they were sampled."""
    generation = config.generation_kwargs
    if generation.do_sample or generation.temperature:
        raise DataError(f"{where}: sampled answers: the record is of greedy ones (temperature 0)")
    return generation.max_gen_toks or generation.max_tokens or int(found.config.argument("max_gen_toks") or LONGEST)


def read_alone(where: str, found: LmEvalResults) -> int:
    """The one token that lm-eval has generated after an answer that is read.

    DataError unless the module has read the answers as it reads its own: a server needs the template to tell them.
    """
    if found.config.model != READER or not found.chat_template:
        what = f"of {found.config.model} {'with' if found.chat_template else 'without'} a chat template"
        raise DataError(f"{where}: likelihoods {what}: run lm_eval with --model {READER} --apply_chat_template")
    return 1


def whole(share: object, items: int, where: str) -> int:
    """How many of `items` a share is; DataError if it is no whole number of them."""
    right = share * items if isinstance(share, int | float) else -1.0
    if not 0 <= right <= items or abs(right - round(right)) > 1e-6:
        raise DataError(f"{where}: {share!r} of {items} items is no whole number of right answers")
    return round(right)
