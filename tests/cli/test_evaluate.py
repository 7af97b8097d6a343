from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from psserve.cli.evaluate import SCORERS
from psserve.cli.main import cli
from psserve.training import scorers
from psserve.zoo import Zoo
from psserve.zoo.synthetic import build_zoo


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_zoo(tmp_path_factory.mktemp("zoo") / "zoo", modules=("alpha", "beta"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "test.jsonl"
    path.write_text('{"prompt": "1 + 1?", "completion": "2"}\n{"prompt": "2 + 2?", "completion": "4"}\n')
    return path


def run(zoo: Zoo, data: Path, *arguments: str | Path) -> Result:
    fixed = ["--zoo", zoo.path, "--data", data, "--scorer", "exact", "--max-tokens", "4"]
    return CliRunner().invoke(cli, ["evaluate", *map(str, [*arguments, *fixed])])


def test_the_command_offers_every_scorer() -> None:
    assert set(SCORERS) == set(scorers.SCORERS)


def test_all_modules_are_scored_and_json_is_all_of_stdout(zoo: Zoo, data: Path) -> None:
    result = run(zoo, data, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["scorer"] == "exact"
    assert [(entry["module"], entry["total"]) for entry in document["results"]] == [("alpha", 2), ("beta", 2)]


def test_the_base_and_a_limit(zoo: Zoo, data: Path) -> None:
    result = run(zoo, data, zoo.base.name, "--limit", "1")
    assert result.stdout == f"{zoo.base.name}\t0.0000\t0/1\n"


def test_comparison_writes_its_report(zoo: Zoo, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run(zoo, data, "alpha", "--compare", zoo.base.path, "--out", tmp_path / "report")
    assert result.exit_code == 0, result.stderr
    assert "| PrefillShare" in result.stdout
    assert (tmp_path / "report" / "accuracy.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gamma"], "no module 'gamma'"),
        (["--compare", "x"], "exactly one MODULE"),
        (["alpha", "--out", "x"], "--compare"),
        (["alpha", "--url", "http://127.0.0.1:1"], "no answer from"),
        (["alpha", "--max-tokens", "5000"], "lower --max-tokens"),
    ],
)
def test_refusals_are_one_line(zoo: Zoo, data: Path, arguments: list[str], message: str) -> None:
    fixed = ["--zoo", str(zoo.path), "--data", str(data), "--scorer", "exact"]
    result = CliRunner().invoke(cli, ["evaluate", *fixed, *arguments])
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert message in result.stderr.splitlines()[-1]


def test_an_item_without_tests_is_refused(zoo: Zoo, data: Path) -> None:
    result = CliRunner().invoke(cli, ["evaluate", "--zoo", str(zoo.path), "--data", str(data), "--scorer", "python"])
    assert result.exit_code == 1
    assert f"{data}: line 1: this scorer needs unit tests" in result.stderr
