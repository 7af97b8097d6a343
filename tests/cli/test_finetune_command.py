from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from psserve.cli.main import cli
from psserve.training import packages
from psserve.zoo import Zoo
from psserve.zoo.synthetic.zoo import build_zoo


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return build_zoo(tmp_path / "zoo", modules=(), num_hidden_layers=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {n}.", "completion": str(n)}) + "\n" for n in range(16)))
    return path


def run(zoo: Zoo, *arguments: object) -> Result:
    return CliRunner().invoke(cli, ["finetune", *map(str, arguments), "--zoo", str(zoo.path)])


def test_finetune_adds_a_module_with_all_that_was_said(zoo: Zoo, data: Path) -> None:
    options = ["--task", "numbers", "--example", "Say 5.", "--alias", "num", "--steps", 2, "--lora", "--rank", 2]
    result = run(zoo, "numbers", "--data", data, *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    module = zoo.module("num")
    assert (module.name, module.task, module.examples) == ("numbers", "numbers", ("Say 5.",))
    assert module.training is not None
    assert module.training.hyperparameters["lora_rank"] == 2
    assert (module.store, module.adapter and module.adapter.rank) == ("adapter", 2)
    assert "added numbers (cache-conditioned): 2 steps, loss" in result.stderr


@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        (["--steps", 0], 2, "--steps 0: must be more than 0"),
        (["--max-grad-norm", 0], 2, "--max-grad-norm 0.0: must be more than 0"),
        (["--weight-decay", -1], 2, "--weight-decay -1.0: must not be negative"),
        (["--rank", 4], 2, "--rank and --lora-target need --lora"),
        (["--merge"], 2, "--merge needs --lora"),
        (["--icarus"], 2, "--icarus trains an adapter that stays one: give --lora, without --merge"),
        (["--icarus", "--lora", "--merge"], 2, "--icarus trains an adapter that stays one"),
        (["--icarus", "--lora", "--method", "full"], 2, "leave --method full out"),
        (["--icarus", "--lora", "--lora-target", "k_proj"], 1, "--lora-target k_proj: with --icarus keys and values"),
        (["--lora", "--lora-target", "nothing"], 1, "LoRA target 'nothing'"),
        (["--resume"], 1, "no run to resume"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_status(
    zoo: Zoo, data: Path, options: list[object], exit_code: int, message: str
) -> None:
    result = run(zoo, "numbers", "--data", data, *options)
    assert result.exit_code == exit_code
    assert result.stderr.startswith("psserve: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (zoo.path / ".training").exists()


def test_an_adapter_by_icarus_rule_is_left_in_its_folder_and_that_is_said(zoo: Zoo, data: Path) -> None:
    result = run(zoo, "numbers", "--data", data, "--steps", 2, "--lora", "--icarus")
    assert result.exit_code == 0, result.stderr
    adapter = zoo.path / ".training" / "numbers" / "adapter"
    assert f"{adapter}: by ICaRus' rule, which no server follows: 2 steps, loss" in result.stderr
    assert (adapter / "adapter_model.safetensors").exists()
    record = json.loads((adapter / "psserve_training.json").read_text())
    assert (record["method"], record["hyperparameters"]["lora_targets"]) == ("icarus", "all-linear but k_proj,v_proj")
    assert zoo.modules() == []


def test_missing_packages_are_named_with_what_to_install(zoo: Zoo, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGES", ("accelerate", "no_such_package"))
    result = run(zoo, "numbers", "--data", data)
    assert result.exit_code == 1
    assert result.stderr == "psserve: error: training needs no_such_package: pip install 'psserve[train]'\n"
