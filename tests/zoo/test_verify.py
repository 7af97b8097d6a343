from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from psserve.errors import UnknownModule
from psserve.zoo import Zoo
from psserve.zoo.disk.manifest import hash_file
from psserve.zoo.materialise import materialise
from psserve.zoo.verify import verify

from .old_zoos import WINDOWS, made_before


def problems(zoo: Zoo, name: str | None = None) -> list[tuple[str, str]]:
    """Who has a finding, and what it says."""
    return [(finding.name, finding.problem) for finding in verify(zoo, name)]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace_in(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def rewrite(directory: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change a module's tensors, and its manifest, as if it had been imported so."""
    weights, manifest = directory / "model.safetensors", directory / "module.toml"
    old_hash, old_size = hash_file(weights), weights.stat().st_size
    tensors = load_file(weights)
    change(tensors)
    save_file(tensors, weights)
    replace_in(manifest, old_hash, hash_file(weights))
    replace_in(manifest, f"size = {old_size}", f"size = {weights.stat().st_size}")


def test_a_sound_zoo_has_no_findings(zoo: Zoo) -> None:
    assert problems(zoo) == []


def test_one_changed_bit_is_found(zoo: Zoo) -> None:
    flip_a_bit(zoo.path / "modules" / "alpha" / "model.safetensors")
    [(name, problem)] = problems(zoo)
    assert (name, "model.safetensors: its content is not what was recorded" in problem) == ("alpha", True)
    assert problems(zoo, "beta") == []


def test_every_kind_of_damage_is_listed(zoo: Zoo, checkpoint: Path) -> None:
    zoo.add("gamma", checkpoint, allow_naive=True)
    modules = zoo.path / "modules"
    (modules / "alpha" / "model.safetensors").unlink()
    (modules / "beta" / "module.toml").write_text("name = ")
    replace_in(modules / "gamma" / "module.toml", zoo.base.fingerprint, "0" * 64)
    (modules / "delta").mkdir()
    found = problems(zoo)
    assert [name for name, _ in found] == ["alpha", "beta", "delta", "gamma"]
    for (_, problem), expected in zip(
        found, ("missing", "not TOML", "no module.toml", "imported for another base"), strict=True
    ):
        assert expected in problem


def test_a_base_that_changed_is_found(zoo: Zoo) -> None:
    flip_a_bit(zoo.base.path / "model.safetensors")
    (zoo.base.path / "chat_template.jinja").unlink()
    found = problems(Zoo.read(zoo.path))
    assert {name for name, _ in found} == {zoo.base.name}
    assert [Path(problem.partition(":")[0]).name for _, problem in found] == [
        "model.safetensors",
        "chat_template.jinja",
    ]


def test_a_base_that_is_gone_does_not_hide_damaged_modules(zoo: Zoo) -> None:
    shutil.rmtree(zoo.base.path)
    flip_a_bit(zoo.path / "modules" / "beta" / "model.safetensors")
    assert [name for name, _ in problems(Zoo.read(zoo.path))][-1] == "beta"
    assert "cannot be read to compare with" in problems(Zoo.read(zoo.path), "alpha")[0][1]


def test_a_fingerprint_that_was_edited_is_found(zoo: Zoo) -> None:
    for manifest in (zoo.path / "zoo.toml", *(zoo.path / "modules").glob("*/module.toml")):
        replace_in(manifest, zoo.base.fingerprint, "0" * 64)
    [(name, problem)] = problems(Zoo.read(zoo.path))
    assert (name, "fingerprint" in problem) == (zoo.base.name, True)


def test_numbers_are_checked_again(zoo: Zoo) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.norm.weight"][0] = np.nan

    rewrite(zoo.path / "modules" / "alpha", spoil)
    [(name, problem)] = problems(zoo)
    assert (name, problem) == (
        "alpha",
        f"{zoo.path}/modules/alpha: tensor model.norm.weight holds NaN or infinity: the training run diverged",
    )


def test_compatibility_is_checked_again(zoo: Zoo) -> None:
    def shrink(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].copy()

    rewrite(zoo.path / "modules" / "alpha", shrink)
    [(name, problem)] = problems(zoo)
    assert (name, "model.norm.weight" in problem, "/tmp/psserve-verify" in problem) == ("alpha", True, False)


def test_deltas_are_rebuilt_and_compared(zoo: Zoo, checkpoint: Path, tmp_path: Path) -> None:
    zoo.add("math", checkpoint, allow_naive=True, store="delta")
    assert problems(zoo, "math") == []
    assert not (zoo.path / ".rebuilt").exists()
    materialise(zoo, zoo.module("math"), tmp_path / "served")
    [kept] = (zoo.path / ".rebuilt").glob("*/*/model.safetensors")
    flip_a_bit(kept)
    [(_, problem)] = problems(zoo, "math")
    assert problem.startswith(f"{kept}: its content is not what was recorded")
    assert f"delete {kept.parent}" in problem


def test_a_kind_without_its_record_is_found(zoo: Zoo) -> None:
    replace_in(zoo.path / "modules" / "alpha" / "module.toml", 'kind = "naive"', 'kind = "cache-conditioned"')
    assert [name for name, _ in problems(zoo)] == ["alpha"]


def test_a_clash_of_names_is_found(zoo: Zoo) -> None:
    replace_in(zoo.path / "modules" / "alpha" / "module.toml", "aliases = []", 'aliases = ["beta"]')
    assert "'beta' is a name of module 'beta' too" in problems(zoo)[0][1]


def test_an_alias_names_its_module(zoo: Zoo) -> None:
    zoo.rename("alpha", "omega", keep_alias=True)
    flip_a_bit(zoo.path / "modules" / "omega" / "model.safetensors")
    assert next(verify(zoo, "alpha")).name == "omega"


def test_an_unknown_module_is_an_error(zoo: Zoo) -> None:
    with pytest.raises(UnknownModule):
        next(verify(zoo, "gamma"))


def test_a_base_that_could_be_none_today_is_found(zoo: Zoo) -> None:
    found = problems(made_before(zoo, **WINDOWS))
    assert found[0][0] == zoo.base.name
    assert "layers of sliding_attention" in found[0][1]


def test_a_context_that_is_longer_than_today_is_found(zoo: Zoo) -> None:
    replace_in(zoo.path / "zoo.toml", "context_length = 4096", "context_length = 8192")
    [(name, problem)] = problems(Zoo.open(zoo.path))
    assert (name, "set context_length to 4096 in zoo.toml" in problem) == (zoo.base.name, True)
