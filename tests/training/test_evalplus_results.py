"""Results files of EvalPlus: what of them is recorded, and what is refused by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import DataError
from psserve.training.evalplus_results import read_found

FILE: dict[str, Any] = {
    "date": "2026-11-30 11:40",
    "hash": "0123456789abcdef0123456789abcdef",
    "eval": {
        "HumanEval/0": [{"task_id": "HumanEval/0", "solution": "", "base_status": "pass", "plus_status": "pass"}],
        "HumanEval/1": [{"task_id": "HumanEval/1", "solution": "", "base_status": "pass", "plus_status": "fail"}],
        "HumanEval/2": [{"task_id": "HumanEval/2", "solution": "", "base_status": "timeout", "plus_status": "pass"}],
    },
}
MINUTE = int(datetime(2026, 11, 30, 11, 40).timestamp())
ANSWER = FILE["eval"]["HumanEval/0"][0]
CALLED = "code_openai_temp_0.0_eval_results.json"


def written(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = copy.deepcopy(FILE)
    change(document)
    return document


def test_both_kinds_of_tests_are_recorded(tmp_path: Path) -> None:
    base, plus = read_found(written(tmp_path / CALLED, FILE)).records
    assert (base.scorer, base.right, base.items) == ("evalplus humaneval base", 2, 3)
    assert (plus.scorer, plus.right, plus.items) == ("evalplus humaneval plus", 1, 3)
    assert (base.date, base.max_tokens, base.how, len(base.data_hash)) == (MINUTE, 768, "fleet", 64)
    assert base.data_hash == plus.data_hash


def test_a_file_that_evalplus_wrote() -> None:
    """Of the demo zoo's `code`, asked as docs/training.md says."""
    base, plus = read_found(Path(__file__).parent / "evalplus" / CALLED).records
    assert (base.right, plus.right, base.items, base.scorer) == (39, 39, 40, "evalplus humaneval base")


def test_first_tests_alone(tmp_path: Path) -> None:
    only = changed(lambda file: [answers[0].update(plus_status=None) for answers in file["eval"].values()])
    (record,) = read_found(written(tmp_path / "python_openai_temp_0.0_eval_results.json", only)).records
    assert (record.scorer, record.right) == ("evalplus humaneval base", 2)


def test_whom_it_asked_is_in_the_name_and_the_date_is_a_minute(tmp_path: Path) -> None:
    found = read_found(written(tmp_path / "code@2_openai_temp_0.0_eval_results.json", FILE))
    assert (found.model, found.start, found.end) == ("code@2", MINUTE, MINUTE + 59)


REFUSED: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "of another backend": ("code_vllm_temp_0.0_eval_results.json", len, "not called as EvalPlus calls"),
    "warm": ("code_openai_temp_0.8_eval_results.json", len, "sampled answers"),
    "several answers": (
        CALLED,
        lambda file: file["eval"]["HumanEval/0"].append(FILE["eval"]["HumanEval/0"][0]),
        "sampled",
    ),
    "no answers": (CALLED, lambda file: file.update(eval={}), "eval: .*: not a results file of EvalPlus"),
    "another date": (CALLED, lambda file: file.update(date="today"), "date: .*: not a results file"),
    "no hash": (CALLED, lambda file: file.pop("hash"), "hash: Field required: not a results file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, case: str) -> None:
    called, change, message = REFUSED[case]
    path = written(tmp_path / called, changed(change))
    with pytest.raises(DataError, match=message) as raised:
        read_found(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file or directory: give the \*_eval_results\.json"):
        read_found(tmp_path / CALLED)
