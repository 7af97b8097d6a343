"""What EvalPlus found, for a module's manifest: the file NAME_openai_temp_0.0_eval_results.json that it writes.

Recorded is how many problems a module solved greedily, by the problems' first tests and by EvalPlus' own beside them.
The file names neither model nor sampling: its name does, as `evalplus.evaluate --model NAME --backend openai` has it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from psserve.errors import DataError
from psserve.training.imported_results import Found, read_results
from psserve.zoo.disk.manifest import EvaluationRecord

LONGEST = 768
"""Tokens of an answer: EvalPlus asks for no other number."""
NAME = re.compile(r"(?P<model>.+)_openai_temp_(?P<temperature>[\d.]+)_eval_results\.json")
PASS = "pass"
LAST_SECOND = 59
"""Of the minute: the date has no seconds."""


def unix_time(text: object) -> object:
    """EvalPlus' date, which is local time, in seconds."""
    return datetime.strptime(text, "%Y-%m-%d %H:%M").timestamp() if isinstance(text, str) else text


class Solution(BaseModel):
    """One answer to a problem."""

    base_status: str
    plus_status: str | None
    """None: EvalPlus' own tests were left out (`--base_only`)."""

    @property
    def passes_base(self) -> bool:
        return self.base_status == PASS

    @property
    def passes_plus(self) -> bool:
        return self.passes_base and self.plus_status == PASS


class EvalPlusResults(BaseModel):
    """The file."""

    date: Annotated[float, BeforeValidator(unix_time)]
    hash: str = Field(pattern=r"^[0-9a-f]{32}$")
    """Of the problems."""
    eval: dict[str, list[Solution]] = Field(min_length=1)
    """By problem: DATASET/NUMBER."""


def read_found(path: Path) -> Found:
    """What the file says. Raises DataError: its answers were not greedy ones."""
    found = read_results(path, EvalPlusResults, "EvalPlus", "the *_eval_results.json of evalplus.evaluate")
    named = NAME.fullmatch(path.name)
    if named is None:
        raise DataError(f"{path}: not called as EvalPlus calls what an OpenAI server answered: leave it its name")
    solutions = [answers[0] for answers in found.eval.values() if len(answers) == 1]
    if len(solutions) != len(found.eval) or float(named["temperature"]):
        raise DataError(f"{path}: sampled answers: the record is of one greedy answer each (--greedy)")
    data = {task.partition("/")[0].lower() for task in found.eval}
    counted: dict[str, Callable[[Solution], bool]] = {"base": lambda one: one.passes_base}
    if all(solution.plus_status is not None for solution in solutions):
        counted["plus"] = lambda one: one.passes_plus
    records = [
        EvaluationRecord(
            date=int(found.date),
            scorer=f"evalplus {' '.join(sorted(data))} {tests}",
            data_hash=hashlib.sha256(found.hash.encode()).hexdigest(),
            items=len(solutions),
            right=sum(map(passes, solutions)),
            max_tokens=LONGEST,
            how="fleet",
        )
        for tests, passes in counted.items()
    ]
    return Found(named["model"], found.date, found.date + LAST_SECOND, records)
