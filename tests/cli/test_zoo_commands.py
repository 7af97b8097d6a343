from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from psserve.cli.main import cli
from psserve.zoo import Zoo
from psserve.zoo.disk.versions import kept_numbers
from psserve.zoo.synthetic.zoo import build_zoo
from tests.cli.zoo_commands import fails
from tests.zoo.checkpoints.test_lora import make_adapter


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_zoo(tmp_path_factory.mktemp("zoo") / "zoo", modules=("alpha",))


@pytest.fixture
def zoo(built: Zoo, tmp_path: Path) -> Zoo:
    return Zoo.open(shutil.copytree(built.path, tmp_path / "zoo"))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_init_creates_a_zoo_and_prints_no_data(zoo: Zoo, tmp_path: Path) -> None:
    result = run("init", "--base", zoo.base.path, "--name", "tiny", "--zoo", tmp_path / "new")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "psserve add-model" in result.stderr
    assert Zoo.open(tmp_path / "new").base.name == "tiny"


def test_init_without_base_is_a_usage_error(tmp_path: Path) -> None:
    assert run("init", "--zoo", tmp_path).exit_code == 2


def test_add_model_imports(zoo: Zoo) -> None:
    options = ["--task", "sums", "--example", "1+1?", "--example", "2+2?", "--alias", "maths", "--allow-naive"]
    result = run("add-model", "math", "--path", zoo.base.path, "--zoo", zoo.path, *options)
    assert result.exit_code == 0, result.stderr
    module = zoo.module("math")
    assert (module.task, module.examples, module.aliases) == ("sums", ("1+1?", "2+2?"), ("maths",))


def test_add_model_refuses_in_one_line(zoo: Zoo) -> None:
    result = run("add-model", "math", "--path", zoo.base.path, "--zoo", zoo.path)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("psserve: error: ")
    assert isinstance(result.exception, SystemExit)
    assert "--allow-naive" in result.stderr.splitlines()[-1]


def test_add_model_says_what_a_naive_module_needs(zoo: Zoo) -> None:
    result = run("add-model", "math", "--path", zoo.base.path, "--zoo", zoo.path, "--allow-naive")
    assert "its accuracy over that cache is unknown; measure it: psserve evaluate math" in result.stderr


def test_add_model_keeps_the_difference_only(zoo: Zoo) -> None:
    options = ["--allow-naive", "--store", "delta"]
    result = run("add-model", "math", "--path", zoo.base.path, "--zoo", zoo.path, *options)
    assert zoo.module("math").store == "delta"
    assert "added math (naive, 1.1 MB, 1.2 kB in the zoo)" in result.stderr


@pytest.fixture(scope="module")
def adapter(built: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(built.base.path, tmp_path_factory.mktemp("lora") / "adapter", target_modules=["q_proj"])


def add_adapter(zoo: Zoo, adapter: Path, *options: str) -> Result:
    return run("add-model", "math", "--path", adapter, "--zoo", zoo.path, "--allow-naive", *options)


def test_add_model_keeps_an_adapter(zoo: Zoo, adapter: Path) -> None:
    result = add_adapter(zoo, adapter, "--store", "adapter")
    assert "added math (naive, adapter of rank 4, " in result.stderr
    assert zoo.module("math").store == "adapter"


def test_an_adapter_stays_one_unless_told_otherwise(zoo: Zoo, adapter: Path) -> None:
    assert add_adapter(zoo, adapter).exit_code == 0
    assert zoo.module("math").store == "adapter"


@pytest.mark.parametrize(("options", "store"), [(["--merge"], "copy"), (["--merge", "--store", "delta"], "delta")])
def test_add_model_merges_an_adapter(zoo: Zoo, adapter: Path, options: list[str], store: str) -> None:
    assert add_adapter(zoo, adapter, *options).exit_code == 0
    assert (zoo.module("math").store, zoo.module("math").adapter) == (store, None)


def test_to_merge_and_to_keep_is_a_usage_error(zoo: Zoo, adapter: Path) -> None:
    result = add_adapter(zoo, adapter, "--merge", "--store", "adapter")
    assert (result.exit_code, "leave one of the two out" in result.stderr) == (2, True)


def test_update_model_goes_from_an_adapter_to_whole_weights_and_back(zoo: Zoo, adapter: Path) -> None:
    add_adapter(zoo, adapter, "--store", "adapter")
    stores = []
    for options in (["--merge"], [], ["--store", "adapter"], []):
        result = run("update-model", "math", "--path", adapter, "--zoo", zoo.path, "--allow-naive", *options)
        assert result.exit_code == 0, result.stderr
        stores.append(zoo.module("math").store)
    assert stores == ["copy", "copy", "adapter", "adapter"]


def test_update_model_takes_whole_weights_for_an_adapter(zoo: Zoo, adapter: Path) -> None:
    add_adapter(zoo, adapter, "--store", "adapter")
    assert run("update-model", "math", "--path", zoo.base.path, "--zoo", zoo.path, "--allow-naive").exit_code == 0
    assert zoo.module("math").store == "copy"


def test_models_and_show_say_what_an_adapter_is(zoo: Zoo, adapter: Path) -> None:
    add_adapter(zoo, adapter, "--store", "adapter")
    assert "\tadapter, rank 4\t" in run("models", "--zoo", zoo.path).stdout
    [module] = [
        row for row in json.loads(run("models", "--json", "--zoo", zoo.path).stdout)["modules"] if row["adapter"]
    ]
    assert (module["name"], module["adapter"]["rank"]) == ("math", 4)
    assert module["adapter"]["targets"] == ["k_proj", "q_proj", "v_proj"]
    assert "rank 4, k_proj, q_proj, v_proj; " in run("show", "math", "--zoo", zoo.path).stdout


def test_export_writes_the_adapter_or_all_weights(zoo: Zoo, adapter: Path, tmp_path: Path) -> None:
    add_adapter(zoo, adapter, "--store", "adapter")
    assert run("export", "math", "--to", tmp_path / "a", "--adapter", "--zoo", zoo.path).exit_code == 0
    assert run("export", "math", "--to", tmp_path / "b", "--merged", "--zoo", zoo.path).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert (tmp_path / "b" / "model.safetensors").exists()
    result = run("export", "alpha", "--to", tmp_path / "c", "--adapter", "--zoo", zoo.path)
    assert (result.exit_code, "module 'alpha' is no adapter" in result.stderr) == (2, True)


def test_a_store_that_there_is_not_is_a_usage_error(zoo: Zoo) -> None:
    assert run("add-model", "math", "--path", zoo.base.path, "--zoo", zoo.path, "--store", "zip").exit_code == 2


def test_a_revision_of_a_directory_is_a_usage_error(zoo: Zoo, tmp_path: Path) -> None:
    result = run("init", "--base", zoo.base.path, "--revision", "main", "--zoo", tmp_path / "new")
    assert (result.exit_code, "--revision is for models of the Hub" in result.stderr) == (2, True)


def test_add_model_warns_about_a_chat_template(zoo: Zoo, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(zoo.base.path, tmp_path / "checkpoint")
    (checkpoint / "chat_template.jinja").write_text("{{ messages }}")
    result = run("add-model", "math", "--path", checkpoint, "--zoo", zoo.path, "--allow-naive")
    assert "warning: the checkpoint's chat template differs" in result.stderr


def test_a_reserved_name_is_a_usage_error(zoo: Zoo) -> None:
    result = run("add-model", "auto", "--path", zoo.base.path, "--zoo", zoo.path)
    assert (result.exit_code, "is reserved" in result.stderr) == (2, True)


def test_models_lists_base_and_modules_in_fields(zoo: Zoo) -> None:
    result = run("models", "--zoo", zoo.path)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["qwen3-tiny", "base"], ["alpha", "naive"]]


def test_models_json_is_complete(zoo: Zoo) -> None:
    document = json.loads(run("models", "--json", "--zoo", zoo.path).stdout)
    assert document["base"]["fingerprint"] == zoo.base.fingerprint
    assert document["modules"][0]["name"] == "alpha"
    assert document["modules"][0]["weight_bytes"] == zoo.module("alpha").weight_bytes


def test_no_zoo_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    result = run("models", "--zoo", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "psserve init" in result.stderr


def test_a_file_that_may_not_be_made_is_an_error_without_traceback(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("init", "--base", zoo.base.path, "--name", "tiny", "--zoo", tmp_path / "file" / "zoo")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("psserve: error: ")
    assert isinstance(result.exception, SystemExit)


def update_math(zoo: Zoo, source: Path, *options: str) -> None:
    result = run("update-model", "math", "--path", source, "--zoo", zoo.path, "--allow-naive", *options)
    assert result.exit_code == 0, result.stderr


def test_models_and_show_list_the_versions_that_rollback_goes_to(zoo: Zoo, adapter: Path) -> None:
    add_adapter(zoo, adapter, "--merge")
    update_math(zoo, zoo.base.path)
    assert "\t2 (1)\t" in run("models", "--zoo", zoo.path).stdout
    [kept] = json.loads(run("show", "math", "--json", "--zoo", zoo.path).stdout)["kept_versions"]
    assert (kept["version"], "LoRA adapter" in kept["origin"]) == (1, True)
    assert "version 1, added" in run("show", "math", "--zoo", zoo.path).stdout
    said = run("rollback", "math", "--zoo", zoo.path).stderr
    assert "version 1 of math" in said
    assert "in the place of version 2" in said
    assert "\t1 (2)\t" in run("models", "--zoo", zoo.path).stdout


def test_rollback_says_which_versions_there_are(zoo: Zoo, adapter: Path) -> None:
    add_adapter(zoo, adapter)
    assert "no version before version 1" in fails(run("rollback", "math", "--zoo", zoo.path))
    assert "(versions: 1)" in fails(run("rollback", "math", "--to", "4", "--zoo", zoo.path))
    assert "is version 1 already" in run("rollback", "math", "--to", "1", "--zoo", zoo.path).stderr


def test_update_model_keeps_as_many_versions_as_it_is_told(zoo: Zoo, adapter: Path) -> None:
    add_adapter(zoo, adapter)
    for kept in ([1], [2, 1], [3, 2], [4, 3]):
        update_math(zoo, adapter)
        assert kept_numbers(zoo.module("math").path) == kept
    update_math(zoo, adapter, "--keep-versions", "1")
    assert kept_numbers(zoo.module("math").path) == []


def test_an_older_version_is_exported_and_removed_by_its_number(zoo: Zoo, adapter: Path, tmp_path: Path) -> None:
    add_adapter(zoo, adapter)
    update_math(zoo, zoo.base.path, "--store", "copy")
    assert run("export", "math@1", "--adapter", "--to", tmp_path / "out", "--zoo", zoo.path).exit_code == 0
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert run("remove-model", "math@1", "--yes", "--zoo", zoo.path).exit_code == 0
    assert "no version 1" in fails(run("export", "math@1", "--to", tmp_path / "two", "--zoo", zoo.path))
    assert zoo.module("math").version == 2
