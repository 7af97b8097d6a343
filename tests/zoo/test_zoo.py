from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from psserve.errors import ManifestError, UnknownModule, UsageError, ZooError, ZooNotFound
from psserve.zoo import Zoo, find_zoo


def test_the_explicit_zoo_wins_over_the_environment(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSERVE_ZOO", str(tmp_path / "other"))
    assert find_zoo(zoo.path) == zoo.path


def test_the_environment_wins_over_the_working_directory(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(zoo.path, tmp_path / "model_zoo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PSSERVE_ZOO", str(zoo.path))
    assert find_zoo() == zoo.path


def test_the_working_directory_has_the_default_zoo(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PSSERVE_ZOO", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZooNotFound, match="psserve init"):
        find_zoo()
    zoo.path.rename(tmp_path / "model_zoo")
    assert find_zoo() == Path("model_zoo")


def test_modules_are_listed_by_name(zoo: Zoo) -> None:
    assert [module.name for module in zoo.modules()] == ["alpha", "beta"]


def test_a_directory_without_manifest_is_no_module(zoo: Zoo) -> None:
    (zoo.path / "modules" / "alpha" / "module.toml").unlink()
    assert [module.name for module in zoo.modules()] == ["beta"]


def test_an_unknown_module_is_an_error_that_lists_the_known(zoo: Zoo) -> None:
    with pytest.raises(UnknownModule, match=r"no module 'gamma' .*alpha, beta"):
        zoo.module("gamma")


def test_a_zoo_can_be_moved(zoo: Zoo, tmp_path: Path) -> None:
    moved = Zoo.open(zoo.path.rename(tmp_path / "moved"))
    assert moved.base.path == tmp_path / "moved" / "base"


def test_a_base_outside_the_zoo_is_found_from_anywhere(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(zoo.path)
    Zoo.create(tmp_path / "new", "base", name="tiny")
    monkeypatch.chdir("/")
    assert Zoo.open(tmp_path / "new").base.path == zoo.base.path


def test_the_base_keeps_what_servers_need_to_know(zoo: Zoo) -> None:
    base = zoo.base
    assert (base.name, base.architecture, base.dtype) == ("qwen3-tiny", "Qwen3ForCausalLM", "float32")
    assert (base.vocab_size, base.context_length, base.eos_token_ids) == (512, 4096, (2,))
    assert (base.num_layers, base.num_kv_heads, base.head_dim) == (4, 2, 32)


def test_a_base_that_changed_is_refused(zoo: Zoo) -> None:
    (zoo.base.path / "config.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"config\.json: 2 bytes, recorded \d+: base 'qwen3-tiny' changed"):
        Zoo.open(zoo.path)


def test_a_base_that_is_gone_is_an_error(zoo: Zoo) -> None:
    shutil.rmtree(zoo.base.path)
    with pytest.raises(ManifestError, match="missing"):
        Zoo.open(zoo.path)


def test_a_second_zoo_in_one_place_is_refused(zoo: Zoo) -> None:
    with pytest.raises(ZooError, match="a zoo is there already"):
        Zoo.create(zoo.path, zoo.base.path)


@pytest.mark.parametrize("name", ["auto", "Base!", "../x"])
def test_a_base_name_that_nobody_may_have_is_refused(zoo: Zoo, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        Zoo.create(tmp_path / "new", zoo.base.path, name)
    assert not (tmp_path / "new").exists()


def test_the_directory_name_is_the_default_base_name(zoo: Zoo, tmp_path: Path) -> None:
    zoo.base.path.rename(tmp_path / "Qwen3 Tiny")
    assert Zoo.create(tmp_path / "new", tmp_path / "Qwen3 Tiny").base.name == "qwen3-tiny"


def test_a_base_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no such directory"):
        Zoo.create(tmp_path / "new", tmp_path / "nowhere")


def test_a_hub_id_that_is_not_on_this_machine_is_never_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ZooError, match="run `hf download some/model`"):
        Zoo.create(tmp_path / "new", "some/model")
