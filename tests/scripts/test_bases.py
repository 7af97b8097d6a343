"""The table of bases is what a run found, and nothing else."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from scripts import bases

QWEN2 = {"passed": 2, "failed": 0, "answers": 19, "difference": 5.2e-06}
PHI3 = {"passed": 1, "failed": 2, "answers": 0, "difference": 0.0}


def reports(name: str, outcome: str = "passed", *, at: str = "call", **compared: float) -> list[pytest.TestReport]:
    """What pytest reports of a test that ended so: of what comes before it, of itself, of what comes after it."""
    ended: dict[str, Any] = {"setup": "passed", "call": "passed", "teardown": "passed", at: outcome}
    if at == "setup" and outcome != "passed":
        del ended["call"]
    return [
        pytest.TestReport(name, ("", 0, ""), {}, how, None, when, user_properties=tuple(compared.items()))  # type: ignore[arg-type]
        for when, how in ended.items()
    ]


RUN = [
    reports("a.py::test_a_chat[qwen2]", checked=3, difference=2.04e-06),
    reports("b.py::test_sixteen_at_once[qwen2]", checked=16, difference=5.16e-06),
    reports("test_own_layer[qwen2]", "skipped", at="setup"),
    reports("test_a_chat[phi3]", "failed", at="setup"),
    reports("test_sixteen_at_once[phi3]", "failed"),
    reports("test_repeated[phi3]"),
    reports("test_of_something_else"),
]


def results(ended: int = len(RUN)) -> dict[str, bases.Result]:
    """What is recorded once so many of the tests have ended."""
    found: dict[str, bases.Result] = {}
    recorder = bases.Recorder(found.__setitem__)
    recorder.expect(test[0].nodeid for test in RUN)
    for report in chain.from_iterable(RUN[:ended]):
        recorder.pytest_runtest_logreport(report)
    return found


def test_a_run_is_counted_by_architecture() -> None:
    assert results() == {"qwen2": QWEN2, "phi3": PHI3}


def test_an_architecture_is_recorded_when_its_last_test_has_ended_and_not_before() -> None:
    assert results(ended=2) == {}
    assert results(ended=3) == results(ended=5) == {"qwen2": QWEN2}


def recorded() -> dict[str, Any]:
    versions = {"transformers": "5.12.1", "torch": "2.13.0"}
    return {"0.5.9": versions | {"results": {}}, "0.5.18": versions | {"results": {"qwen2": QWEN2, "phi3": PHI3}}}


def test_a_table_has_a_column_for_each_release_in_order() -> None:
    lines = bases.table(recorded()).splitlines()
    assert lines[0] == "| architecture | models | SGLang 0.5.9 | SGLang 0.5.18 |"
    row = next(line for line in lines if "Qwen2ForCausalLM" in line)
    assert row.endswith("| not run | 2 tests, 19 answers, 5e-06 |")
    assert "**2 of 3 tests failed**" in next(line for line in lines if "Phi3ForCausalLM" in line)
    assert lines[-1].startswith("0.5.9: Transformers 5.12.1, PyTorch 2.13.0; 0.5.18: ")


def test_what_failed_or_was_not_run_is_no_base_of_readme() -> None:
    assert bases.names(recorded()) == "Qwen2, Qwen2.5, QwQ"
