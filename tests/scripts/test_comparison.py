"""What a measurement's folder knows of its calls, and what one that goes on may ask for."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
Call = Callable[..., tuple[Any, Path]]


@pytest.fixture
def comparison(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("measuring.comparison")


@pytest.fixture
def call(comparison: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """bench_cpu.py, as far as options and folder: its arguments -> those."""
    bench_cpu = importlib.import_module("bench_cpu")

    def called(*arguments: str) -> tuple[Any, Path]:
        monkeypatch.setattr(sys, "argv", ["/x/scripts/bench_cpu.py", *arguments, "--work", str(tmp_path)])
        options, folder = comparison.measurement(bench_cpu.parse, bench_cpu.folder_of)
        comparison.note_call(options, folder)
        return options, folder

    return called


def test_what_goes_on_is_what_the_first_call_asked_for(call: Call) -> None:
    call("--repeats", "2", "--out", "mine.json", "--modules", "2")
    options, _ = call("--resume", "--modules", "2")
    assert (options.repeats, options.out, options.resume) == (2, Path("mine.json"), True)


def test_the_result_may_go_elsewhere(call: Call) -> None:
    call("--out", "mine.json")
    assert call("--resume", "--out", "other.json")[0].out == Path("other.json")


@pytest.mark.parametrize("arguments", [("--repeats", "3"), ("--sessions", "5", "--repeats", "3")])
def test_other_options_beside_resume_are_refused_by_name(call: Call, arguments: tuple[str, ...]) -> None:
    call("--repeats", "2")
    with pytest.raises(SystemExit) as refused:
        call("--resume", *arguments)
    names = ", ".join(arguments[::2])
    assert str(refused.value) == f"--resume goes on with what was asked for first: leave out {names}"


def test_the_first_calls_own_options_beside_resume_are_no_other_ones(call: Call) -> None:
    call("--repeats", "2")
    assert call("--repeats", "2", "--resume")[0].repeats == 2


def test_nothing_begun_is_nothing_to_go_on_with(call: Call, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds nothing to go on with"):
        call("--resume")
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_begins_anew_sets_the_earlier_measurement_aside(call: Call, comparison: ModuleType) -> None:
    _, folder = call("--repeats", "2")
    call("--repeats", "1")
    assert [each[:2] for each in comparison.calls_in(folder)] == [["--repeats", "1"]]
    [aside] = folder.parent.glob("reflexion-4-*")
    assert [each[:2] for each in comparison.calls_in(aside)] == [["--repeats", "2"]]


def test_what_was_interrupted_before_the_comparison_began_gets_all_options(call: Call, comparison: ModuleType) -> None:
    new_comparison = importlib.import_module("bench_cpu").new_comparison
    call("--repeats", "2", "--sessions", "7")
    options, folder = call("--resume")
    given = new_comparison(options, Path("zoo"), folder)
    assert given[given.index("--repeats") + 1] == "2"
    (folder / "compare.json").touch()
    assert new_comparison(options, Path("zoo"), folder) == ["--resume", str(folder)]


def test_the_result_tells_all_commands_in_order(call: Call, comparison: ModuleType, tmp_path: Path) -> None:
    call("--systems", "shared,single")
    _, folder = call("--resume", "--out", "a b.json")
    (folder / "report.json").write_text('{"ratios": {}}')
    comparison.keep(folder, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["command"] == (
        f"python scripts/bench_cpu.py --systems shared,single --work {tmp_path}; "
        f"python scripts/bench_cpu.py --resume --out 'a b.json' --work {tmp_path}"
    )
