from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from psserve.zoo.disk.storage import read_json
from psserve.zoo.export import export_module
from psserve.zoo.materialise import materialise
from psserve.zoo.synthetic.quantised import CONFIGS, write_quantised
from psserve.zoo.verify import verify
from tests.zoo.quantised import Tensors, configure, copy_of

PAIRS = [
    *(("fp8-blocks", module) for module in CONFIGS),
    *((base, "plain") for base in CONFIGS),
    *(("plain", module) for module in CONFIGS),
]


@pytest.fixture(scope="session")
def checkpoints(quantised: Mapping[str, Path], session_zoo: Zoo) -> Mapping[str, Path]:
    """Those that are quantised, and the original."""
    return {**quantised, "plain": session_zoo.base.path}


@pytest.mark.parametrize(("base", "module"), PAIRS)
def test_a_module_may_be_quantised_otherwise_than_the_base(
    checkpoints: Mapping[str, Path], tmp_path: Path, base: str, module: str
) -> None:
    zoo = Zoo.create(tmp_path / "zoo", checkpoints[base])
    zoo.add("mine", checkpoints[module], allow_naive=True)
    served = read_checkpoint(materialise(zoo, zoo.module("mine"), tmp_path / "served"))
    own = read_checkpoint(checkpoints[module])
    assert (served.quantisation, served.tensors) == (own.quantisation, own.tensors)
    assert [*verify(zoo)] == []


@pytest.mark.parametrize("store", ["copy", "link", "delta"])
@pytest.mark.parametrize("name", CONFIGS)
def test_however_it_is_stored_the_same_bytes_are_served(
    quantised: Mapping[str, Path], session_zoo: Zoo, tmp_path: Path, name: str, store: Literal["copy", "link", "delta"]
) -> None:
    alpha = export_module(session_zoo, session_zoo.module("alpha"), tmp_path / "alpha")
    module = write_quantised(alpha, tmp_path / "module", CONFIGS[name])
    zoo = Zoo.create(tmp_path / "zoo", quantised[name])
    zoo.add("mine", module, allow_naive=True, store=store)
    weights = (module / "model.safetensors").read_bytes()
    assert weights != (quantised[name] / "model.safetensors").read_bytes()
    served = materialise(zoo, zoo.module("mine"), tmp_path / "served")
    exported = export_module(zoo, zoo.module("mine"), tmp_path / "exported")
    for place in (served, exported):
        assert (place / "model.safetensors").read_bytes() == weights
        assert read_json(place / "config.json")["quantization_config"] == CONFIGS[name]


def test_an_unquantised_module_is_exported_without_the_bases_quantisation(
    checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    zoo = Zoo.create(tmp_path / "zoo", checkpoints["awq"])
    zoo.add("mine", checkpoints["plain"], allow_naive=True)
    config = read_json(export_module(zoo, zoo.module("mine"), tmp_path / "exported") / "config.json")
    assert "quantization_config" not in config
    assert config["dtype"] == "float32"


def test_what_is_unlike_the_base_is_recorded(checkpoints: Mapping[str, Path], tmp_path: Path) -> None:
    zoo = Zoo.create(tmp_path / "zoo", checkpoints["awq"])
    plain = zoo.add("plain", checkpoints["plain"], allow_naive=True)
    other = zoo.add("other", checkpoints["fp8-blocks"], allow_naive=True)
    same = zoo.add("same", checkpoints["awq"], allow_naive=True)
    assert (plain.quantisation, plain.dtype) == ("none", "float32")
    assert "its weights are not quantised, the base's awq of 4 bits, groups of 32" in plain.notes
    assert (other.quantisation, other.dtype) == ("fp8, blocks of 32x32", "bfloat16")
    assert (same.quantisation, same.dtype) == (None, None)


def test_a_note_of_how_the_checkpoint_was_made_matters_to_nobody(
    checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    zoo = Zoo.create(tmp_path / "zoo", checkpoints["gptq"])
    module = configure(copy_of(checkpoints["gptq"], tmp_path / "module"), {"damp_percent": 0.1})
    assert not [note for note in zoo.add("mine", module, allow_naive=True).notes if "its weights are" in note]


def drop(tensors: Tensors) -> None:
    del tensors["model.layers.3.mlp.up_proj.scales"]


def test_a_module_that_is_not_what_its_own_configuration_says_is_refused(
    checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    zoo = Zoo.create(tmp_path / "zoo", checkpoints["fp8-blocks"])
    module = copy_of(checkpoints["awq"], tmp_path / "module", drop)
    with pytest.raises(IncompatibleCheckpoint, match=r"layers\.3\.mlp\.up_proj\.scales needs \[2, 128\], found none"):
        zoo.add("mine", module, allow_naive=True)
    assert zoo.modules() == []


def test_an_unquantised_module_must_be_whole(checkpoints: Mapping[str, Path], tmp_path: Path) -> None:
    zoo = Zoo.create(tmp_path / "zoo", checkpoints["fp8-blocks"])
    module = copy_of(checkpoints["plain"], tmp_path / "module", lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(IncompatibleCheckpoint, match=r"model\.norm\.weight needs \[64\], found none"):
        zoo.add("mine", module, allow_naive=True)


def test_a_configuration_that_changes_the_cache_is_refused_whatever_the_quantisation(
    checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    zoo = Zoo.create(tmp_path / "zoo", checkpoints["fp8-blocks"])
    module = copy_of(checkpoints["awq"], tmp_path / "module")
    path = module / "config.json"
    path.write_text(path.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    with pytest.raises(IncompatibleCheckpoint, match="rms_norm_eps: base 1e-06, module 1e-05"):
        zoo.add("mine", module, allow_naive=True)


def test_a_quantised_checkpoint_without_its_configuration_is_refused(
    checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    module = shutil.copytree(checkpoints["awq"], tmp_path / "module")
    shutil.copyfile(checkpoints["plain"] / "config.json", module / "config.json")
    zoo = Zoo.create(tmp_path / "zoo", checkpoints["plain"])
    with pytest.raises(IncompatibleCheckpoint, match=r"down_proj\.weight: base F32\[64, 128\], module none"):
        zoo.add("mine", module, allow_naive=True)


@pytest.mark.parametrize("name", ["fp8-blocks", "gptq"])
def test_an_adapter_for_a_quantised_base_is_refused_by_name(
    checkpoints: Mapping[str, Path], tmp_path: Path, name: str
) -> None:
    zoo = Zoo.create(tmp_path / "zoo", checkpoints[name])
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')
    message = r"a LoRA adapter, and the base is quantised \(.*\): nothing can be added to its weights: merge it into"
    with pytest.raises(IncompatibleCheckpoint, match=message):
        zoo.add("mine", tmp_path / "adapter", allow_naive=True)


def test_a_weight_of_a_module_that_is_no_number_is_found(checkpoints: Mapping[str, Path], tmp_path: Path) -> None:
    zoo = Zoo.create(tmp_path / "zoo", checkpoints["awq"])
    module = shutil.copytree(checkpoints["fp8-blocks"], tmp_path / "module")
    tensors = load_file(module / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"].view(torch.uint8)[0, 0] = 0x7F
    save_file(tensors, module / "model.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match=r"up_proj\.weight holds NaN or infinity"):
        zoo.add("mine", module, allow_naive=True)
