from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from psserve.errors import ManifestError, ModuleExists, UnknownModule
from psserve.zoo import Zoo
from psserve.zoo.disk import scan


def edit_manifest(zoo: Zoo, name: str, old: str, new: str) -> None:
    manifest = zoo.path / "modules" / name / "module.toml"
    assert old in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(old, new))


def truncate_manifest(directory: Path) -> None:
    (directory / "module.toml").write_text("name = ")


def make_manifest_a_directory(directory: Path) -> None:
    (directory / "module.toml").unlink()
    (directory / "module.toml").mkdir()


def remove_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def truncate_weights(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_manifest, r"alpha/module\.toml: not TOML"),
        (make_manifest_a_directory, r"alpha/module\.toml: Is a directory"),
        (remove_weights, r"alpha/model\.safetensors: missing"),
        (truncate_weights, r"alpha/model\.safetensors: 1 bytes, recorded \d+"),
    ],
)
def test_a_damaged_module_is_named_and_the_others_go_on(zoo: Zoo, damage: Callable[[Path], None], message: str) -> None:
    damage(zoo.path / "modules" / "alpha")
    assert [module.name for module in zoo.modules()] == ["beta"]
    assert zoo.module("beta").name == "beta"
    with pytest.raises(ManifestError, match=message):
        zoo.module("alpha")


def test_a_module_in_a_directory_of_another_name_is_damaged(zoo: Zoo) -> None:
    (zoo.path / "modules" / "alpha").rename(zoo.path / "modules" / "omega")
    with pytest.raises(ManifestError, match="name is 'alpha' but the directory is 'omega'"):
        zoo.module("omega")


def test_a_module_of_another_base_is_damaged(zoo: Zoo) -> None:
    edit_manifest(zoo, "alpha", zoo.base.fingerprint, "0" * 64)
    with pytest.raises(ManifestError, match=r"imported for another base \(fingerprint 000000000000, base 'qwen3-tiny'"):
        zoo.module("alpha")


def test_of_two_modules_with_one_alias_the_second_is_damaged(zoo: Zoo) -> None:
    for name in ("alpha", "beta"):
        edit_manifest(zoo, name, "aliases = []", 'aliases = ["same"]')
    assert zoo.module("same").name == "alpha"
    with pytest.raises(ManifestError, match="'same' is a name of module 'alpha' too"):
        zoo.module("beta")


def test_an_alias_never_takes_a_modules_name(zoo: Zoo) -> None:
    edit_manifest(zoo, "alpha", "aliases = []", 'aliases = ["beta"]')
    assert zoo.module("beta").name == "beta"
    with pytest.raises(ManifestError, match="'beta' is a name of module 'beta' too"):
        zoo.module("alpha")


def test_a_damaged_module_keeps_its_name(zoo: Zoo, checkpoint: Path) -> None:
    truncate_manifest(zoo.path / "modules" / "alpha")
    with pytest.raises(ModuleExists, match="'alpha' is taken"):
        zoo.add("alpha", checkpoint, allow_naive=True)
    assert zoo.add("alpha", checkpoint, allow_naive=True, replace=True).name == "alpha"


def test_the_known_modules_include_the_damaged(zoo: Zoo) -> None:
    truncate_manifest(zoo.path / "modules" / "alpha")
    with pytest.raises(UnknownModule, match=r"no module 'gamma' .*alpha, beta"):
        zoo.module("gamma")


def test_an_empty_zoo_says_how_to_add_a_module(zoo: Zoo) -> None:
    shutil.rmtree(zoo.path / "modules")
    with pytest.raises(UnknownModule, match="psserve add-model"):
        zoo.module("gamma")


def test_a_manifest_is_parsed_once(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    before = zoo.modules()
    monkeypatch.setattr(scan, "read_manifest", lambda path, model: pytest.fail(f"{path} was parsed again"))
    assert zoo.modules() == before


def test_a_manifest_that_changed_is_parsed_again(zoo: Zoo) -> None:
    before = zoo.module("alpha")
    edit_manifest(zoo, "alpha", f"created = {before.created}", "created = 1")
    edit_manifest(zoo, "alpha", "created = 1", "created = 2")
    assert zoo.module("alpha").created == 2
