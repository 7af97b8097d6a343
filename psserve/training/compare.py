"""The paper's two comparisons: sharing the base's KV against not sharing it, and how much of it is shared.

    row            prompt's KV from   answers from
    base           base               base
    full           full               full           full fine-tuning, its own prefill
    naive          base               full           full fine-tuning over a cache it was not trained on
    prefillshare   base               prefillshare   cache-conditioned fine-tuning
    lora           base               lora           the same with a low-rank update (where there is one)

The curves run each fine-tune over a prompt whose first 0, 25, 50, 75 or 100% have the base's KV. So `full` is the full
curve's beginning, `naive` its end, and `prefillshare` the end of the other curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

from psserve.errors import IncompatibleCheckpoint
from psserve.training.answers import Answerer, pair_answerer
from psserve.training.conversation import Conversation
from psserve.training.hf import PreTrainedModel
from psserve.training.reference import ModelPair, load_model, load_pair
from psserve.training.scorers import Scorer, evaluate
from psserve.zoo import Zoo
from psserve.zoo.adding.incoming import read_training
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from psserve.zoo.checkpoints.compatibility import check_compatible
from psserve.zoo.disk.manifest import TrainingRecord

SHARES = (0, 25, 50, 75, 100)
"""Percent of the prompt's KV that the base computes."""
ENDS = (0, 100)
"""Those that the rows are made of."""
ROWS = ("base", "full", "naive", "prefillshare")
TRAINED = ("full", "prefillshare")

Key = TypeVar("Key", str, int)

MakeAnswerer = Callable[[ModelPair, float], Answerer]
"""(the two models, share of the base's KV from 0 to 1) -> what answers."""


@dataclass(frozen=True)
class Contest:
    """A task's held-out items, and the models to compare on them: same base, data and budget."""

    base: PreTrainedModel
    full: PreTrainedModel
    prefillshare: PreTrainedModel
    items: Sequence[Conversation]
    scorer: Scorer
    max_tokens: int
    lora: PreTrainedModel | None = None


@dataclass(frozen=True)
class TaskAccuracy:
    """Accuracies (0 to 1) of one task: the base's, and each fine-tune's at every share that was tried."""

    base: float
    curves: Mapping[str, Mapping[int, float]]
    lora: float | None = None

    @property
    def rows(self) -> dict[str, float]:
        """The rows by name."""
        full, trained = self.curves["full"], self.curves["prefillshare"]
        rows = dict(zip(ROWS, (self.base, full[0], full[100], trained[100]), strict=True))
        return rows if self.lora is None else rows | {"lora": self.lora}


def compare_fine_tunes(contest: Contest, make: MakeAnswerer, shares: Sequence[int] = SHARES) -> TaskAccuracy:
    """Evaluate the base and both fine-tunes. `shares` must have 0 and 100 in it."""

    def accuracy(module: PreTrainedModel, percent: int) -> float:
        answerer = make(ModelPair(contest.base, module), percent / 100)
        return evaluate(answerer, contest.items, contest.scorer, contest.max_tokens).share

    curves = {
        name: {percent: accuracy(module, percent) for percent in shares}
        for name, module in (("full", contest.full), ("prefillshare", contest.prefillshare))
    }
    lora = None if contest.lora is None else accuracy(contest.lora, 100)
    return TaskAccuracy(accuracy(contest.base, 100), curves, lora)


def compare_in_zoo(
    zoo: Zoo,
    module_name: str,
    full: Path,
    items: Sequence[Conversation],
    scorer: Scorer,
    max_tokens: int,
    batch_size: int,
) -> dict[str, Any]:
    """The summary of one contest: a module of the zoo against the full fine-tune in directory `full`.

    IncompatibleCheckpoint if `full` is no fine-tune of the zoo's base, or was trained on other data or for longer.
    """
    check_compatible(zoo.base.name, read_checkpoint(zoo.base.path), read_checkpoint(full))
    check_same_budget(zoo.module(module_name).training, read_training(full), full)
    base, module = load_pair(zoo, module_name)
    contest = Contest(base, load_model(full), module, items, scorer, max_tokens)

    def make(pair: ModelPair, share: float) -> Answerer:
        return pair_answerer(zoo, pair, batch_size=batch_size, base_share=share)

    return summary([{module_name: compare_fine_tunes(contest, make)}])


def check_same_budget(module: TrainingRecord | None, full: TrainingRecord | None, where: Path) -> None:
    """Raise IncompatibleCheckpoint where training records say that data or budget differ; no record says nothing."""
    if module is None or full is None:
        return
    told = [{"data_hash": record.data_hash, **record.hyperparameters} for record in (module, full)]
    for name in ("data_hash", "steps", "epochs", "batch_size", "accumulation", "processes"):
        ours, theirs = (record.get(name) for record in told)
        if ours != theirs:
            raise IncompatibleCheckpoint(
                f"{where}: {name} was {theirs}, and is {ours} of the module: the comparison would say nothing: train "
                "both on the same data for as long"
            )


def summary(runs: Sequence[Mapping[str, TaskAccuracy]]) -> dict[str, Any]:
    """The document of docs/results/accuracy.json: means over runs (one a seed) of the same tasks, and their spread.

    Spread is the sample standard deviation; a single run has none, and no list of the runs' rows. A row that only some
    runs have (LoRA) is the mean over those, and the curves are those of the runs that have most shares; `curve_seeds`
    says how many there are.
    """
    tasks: dict[str, object] = {}
    for task in runs[0]:
        results = [run[task] for run in runs]
        rows = gather([result.rows for result in results])
        entry: dict[str, object] = {row: fmean(values) for row, values in rows.items()}
        if len(runs) > 1:
            entry["spread"] = {row: stdev(values) for row, values in rows.items() if len(values) > 1}
            entry["runs"] = [result.rows for result in results]
        entry["shares"] = {
            name: {str(percent): fmean(values) for percent, values in gather(thorough(results, name)).items()}
            for name in TRAINED
        }
        tasks[task] = entry
    curves = thorough([run[task] for run in runs], TRAINED[0])
    return {"tasks": tasks, "seeds": len(runs), "curve_seeds": len(curves)}


def thorough(results: Sequence[TaskAccuracy], name: str) -> list[Mapping[int, float]]:
    """The curves of this name that have most shares."""
    curves = [result.curves[name] for result in results]
    most = max(map(len, curves))
    return [curve for curve in curves if len(curve) == most]


def gather(runs: Sequence[Mapping[Key, float]]) -> dict[Key, list[float]]:
    """The values of each key, in the order of the runs that have it."""
    values: dict[Key, list[float]] = {}
    for run in runs:
        for key, value in run.items():
            values.setdefault(key, []).append(value)
    return values
