"""Modules that stay adapters: their files as they came, and the form that servers load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from psserve.errors import IncompatibleCheckpoint, ManifestError, UsageError
from psserve.zoo import Module, Zoo, materialise, serving_form
from psserve.zoo.adding.incoming import TRAINING_RECORD
from psserve.zoo.disk.forms import FORMS, SERVED
from psserve.zoo.disk.manifest import AdapterShape, hash_file
from psserve.zoo.disk.transactions import changing
from psserve.zoo.export import export_adapter, export_module
from psserve.zoo.verify import verify

from .checkpoints.test_lora import change_config, change_tensors, make_adapter, merged_by_peft
from .test_verify import flip_a_bit

FILES = ["adapter_config.json", "adapter_model.safetensors"]


@pytest.fixture(scope="module")
def made(session_zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that PEFT made, of two layers of a group of three."""
    directory = tmp_path_factory.mktemp("made") / "adapter"
    return make_adapter(session_zoo.base.path, directory, target_modules=["q_proj", "v_proj"], use_rslora=True)


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    """It, to be changed."""
    return shutil.copytree(made, tmp_path / "adapter")


def add(zoo: Zoo, adapter: Path, name: str = "math", replace: bool = False) -> Module:
    return zoo.add(name, adapter, allow_naive=True, store="adapter", replace=replace)


def forms(zoo: Zoo, name: str = "math") -> list[Path]:
    """The forms of a module that are there."""
    return sorted((zoo.path / FORMS / name).glob("*/"))


def grown(adapter: Path) -> Path:
    """`adapter`, trained further."""
    change_tensors(adapter, lambda tensors: [tensor.add_(0.01) for tensor in tensors.values()])
    return adapter


def test_its_files_are_kept_as_they_came(zoo: Zoo, adapter: Path) -> None:
    module = add(zoo, adapter)
    assert sorted(path.name for path in module.path.iterdir()) == [*FILES, "module.toml"]
    assert all((module.path / name).read_bytes() == (adapter / name).read_bytes() for name in FILES)
    assert module.store == "adapter"
    assert module.disk_bytes == sum((adapter / name).stat().st_size for name in FILES)


def test_the_manifest_says_what_servers_must_know(zoo: Zoo, adapter: Path) -> None:
    module = add(zoo, adapter)
    weights = serving_form(zoo, module) / "adapter_model.safetensors"
    wanted = AdapterShape(rank=4, targets=("k_proj", "q_proj", "v_proj"), bytes=weights.stat().st_size)
    assert (module.adapter, zoo.module("math").adapter) == (wanted, wanted)


def test_the_form_is_there_once_the_module_is(zoo: Zoo, adapter: Path) -> None:
    module = add(zoo, adapter)
    [form] = forms(zoo)
    assert serving_form(zoo, module) == form
    config = json.loads((form / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8 / 4**0.5 * 4)


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda form: (form / FILES[1]).write_bytes(b"cut short")])
def test_a_form_that_is_not_whole_is_made_again(zoo: Zoo, adapter: Path, damage: Callable[[Path], None]) -> None:
    module = add(zoo, adapter)
    [form] = forms(zoo)
    before = hash_file(form / FILES[1])
    damage(form)
    assert serving_form(zoo, module) == form
    assert hash_file(form / FILES[1]) == before


def test_a_form_is_not_made_of_another_adapter(zoo: Zoo, adapter: Path) -> None:
    module = add(zoo, adapter)
    shutil.rmtree(zoo.path / FORMS)
    change_config(module.path, r=8)
    with pytest.raises(ManifestError, match=r"adapter_config\.json: \d+ bytes, recorded \d+"):
        serving_form(zoo, module)


def test_a_form_is_not_made_of_weights_that_changed_since(zoo: Zoo, adapter: Path) -> None:
    module = add(zoo, adapter)
    shutil.rmtree(forms(zoo)[0])
    flip_a_bit(module.path / "adapter_model.safetensors")
    with pytest.raises(ManifestError, match="not what was recorded"):
        serving_form(zoo, module)


def test_the_form_of_an_adapter_that_is_added_again_is_not_touched(zoo: Zoo, adapter: Path) -> None:
    """A fleet may serve it, and a server be about to read it."""
    add(zoo, adapter)
    [before] = forms(zoo)
    inode = before.stat().st_ino
    add(zoo, adapter, replace=True)
    [after] = forms(zoo)
    assert (after, after.stat().st_ino) == (before, inode)


def test_the_form_of_a_replaced_adapter_goes(zoo: Zoo, adapter: Path) -> None:
    old = serving_form(zoo, add(zoo, adapter))
    new = serving_form(zoo, add(zoo, grown(adapter), replace=True))
    assert forms(zoo) == [new] != [old]


def test_a_form_that_a_fleet_serves_stays_until_it_does_not(zoo: Zoo, adapter: Path) -> None:
    old = serving_form(zoo, add(zoo, adapter))
    link = zoo.path / SERVED / "math@1"
    link.parent.mkdir(parents=True)
    link.symlink_to(old)
    new = serving_form(zoo, add(zoo, grown(adapter), replace=True))
    assert forms(zoo) == sorted([old, new])
    zoo.remove("math")
    assert forms(zoo) == [old]
    link.unlink()
    with changing(zoo.path):
        pass
    assert not (zoo.path / FORMS / "math").exists()


def test_a_renamed_module_has_a_form_under_its_new_name(zoo: Zoo, adapter: Path) -> None:
    add(zoo, adapter)
    module = zoo.rename("math", "sums")
    assert (forms(zoo), serving_form(zoo, module).parent) == ([], zoo.path / FORMS / "sums")


def test_full_weights_have_no_form(zoo: Zoo) -> None:
    with pytest.raises(ValueError, match="'alpha' is no adapter"):
        serving_form(zoo, zoo.module("alpha"))


def test_alone_it_is_the_base_with_the_adapter_merged(zoo: Zoo, adapter: Path, tmp_path: Path) -> None:
    served = materialise(zoo, add(zoo, adapter), tmp_path / "served")
    found, wanted = load_file(served / "model.safetensors"), merged_by_peft(zoo.base.path, adapter)
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-6, atol=1e-6)
    merged = zoo.add("merged", adapter, allow_naive=True, store="copy")
    assert (served / "model.safetensors").read_bytes() == (merged.path / "model.safetensors").read_bytes()


def test_full_weights_are_no_adapter(zoo: Zoo, checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="--store adapter is for LoRA adapters"):
        zoo.add("math", checkpoint, allow_naive=True, store="adapter")


def test_without_a_store_an_adapter_stays_one_and_full_weights_are_copied(
    zoo: Zoo, adapter: Path, checkpoint: Path
) -> None:
    stores = [
        zoo.add(name, path, allow_naive=True, store=None).store
        for name, path in {"a": adapter, "b": checkpoint}.items()
    ]
    assert stores == ["adapter", "copy"]


def test_one_with_end_tokens_of_its_own_shares_no_server(zoo: Zoo, adapter: Path) -> None:
    assert add(zoo, adapter).shares_servers
    (adapter / "generation_config.json").write_text(json.dumps({"eos_token_id": [7]}))
    assert not add(zoo, adapter, replace=True).shares_servers
    assert not zoo.module("alpha").shares_servers


def test_one_that_does_nothing_is_noted(zoo: Zoo, adapter: Path) -> None:
    change_tensors(adapter, lambda tensors: [tensors[name].zero_() for name in tensors if ".lora_B." in name])
    assert "the adapter changes nothing" in " ".join(add(zoo, adapter).notes)


def test_values_that_are_no_numbers_are_refused(zoo: Zoo, adapter: Path) -> None:
    change_tensors(adapter, lambda tensors: next(iter(tensors.values())).fill_(float("nan")))
    with pytest.raises(IncompatibleCheckpoint, match="holds NaN or infinity"):
        add(zoo, adapter)
    assert not (zoo.path / FORMS).exists()


def test_verify_finds_nothing_wrong_with_a_sound_one(zoo: Zoo, adapter: Path) -> None:
    add(zoo, adapter)
    assert list(verify(zoo)) == []


def test_verify_finds_a_changed_adapter(zoo: Zoo, adapter: Path) -> None:
    module = add(zoo, adapter)
    flip_a_bit(module.path / FILES[1])
    [finding] = verify(zoo, "math")
    assert "adapter_model.safetensors: its content is not what was recorded" in finding.problem


def test_verify_finds_a_changed_form(zoo: Zoo, adapter: Path) -> None:
    form = serving_form(zoo, add(zoo, adapter))
    tensors = load_file(form / FILES[1])
    save_file(tensors | {name: tensor + 1 for name, tensor in tensors.items() if "k_proj" in name}, form / FILES[1])
    [finding] = verify(zoo)
    assert (finding.name, "not what the adapter gives: delete it" in finding.problem) == ("math", True)


def test_verify_does_not_have_a_form_deleted_that_a_fleet_serves(zoo: Zoo, adapter: Path) -> None:
    form = serving_form(zoo, add(zoo, adapter))
    (zoo.path / SERVED).mkdir(parents=True)
    (zoo.path / SERVED / "math@1").symlink_to(form)
    flip_a_bit(form / FILES[1])
    [finding] = verify(zoo)
    assert "not what the adapter gives: stop the fleet that serves it, then delete it" in finding.problem


@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink])
def test_verify_finds_what_is_wrong_with_a_merged_one(
    zoo: Zoo, adapter: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    served = materialise(zoo, add(zoo, adapter), tmp_path / "served")
    assert list(verify(zoo)) == []
    damage((served / "model.safetensors").resolve())
    [finding] = verify(zoo)
    assert "model.safetensors: not what merging the adapter gives: delete" in finding.problem


@pytest.mark.parametrize("file", ["base/model.safetensors", "modules/math/adapter_model.safetensors"])
def test_what_changed_is_not_merged(zoo: Zoo, adapter: Path, tmp_path: Path, file: str) -> None:
    module = add(zoo, adapter)
    flip_a_bit(zoo.path / file)
    with pytest.raises(ManifestError, match=r"safetensors: changed since it was recorded"):
        materialise(zoo, module, tmp_path / "served")


def test_it_is_exported_as_it_came(zoo: Zoo, adapter: Path, tmp_path: Path) -> None:
    (adapter / "generation_config.json").write_text(json.dumps({"eos_token_id": [7]}))
    (adapter / TRAINING_RECORD).write_text(json.dumps({"method": "full", "base_fingerprint": zoo.base.fingerprint}))
    module = add(zoo, adapter)
    out = export_adapter(zoo, module, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == [*FILES, "generation_config.json", TRAINING_RECORD]
    again = add(zoo, out, "again")
    assert (again.files, again.training, again.settings) == (module.files, module.training, module.settings)


def test_it_is_exported_merged(zoo: Zoo, adapter: Path, tmp_path: Path) -> None:
    out = export_module(zoo, add(zoo, adapter), tmp_path / "out")
    merged = zoo.add("merged", adapter, allow_naive=True, store="copy")
    assert (out / "model.safetensors").read_bytes() == (merged.path / "model.safetensors").read_bytes()
    assert sorted(path.name for path in out.iterdir()) == sorted(file.name for file in zoo.base.files)


def test_whole_weights_are_not_exported_as_an_adapter(zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'alpha' is no adapter: its weights are whole \(store 'copy'\)"):
        export_adapter(zoo, zoo.module("alpha"), tmp_path / "out")


def test_an_adapter_becomes_whole_weights_and_back(zoo: Zoo, adapter: Path, checkpoint: Path) -> None:
    add(zoo, adapter)
    whole = zoo.add("math", checkpoint, allow_naive=True, replace=True)
    assert (whole.store, whole.adapter, forms(zoo)) == ("copy", None, [])
    assert add(zoo, adapter, replace=True).adapter
    assert len(forms(zoo)) == 1
