"""Every bad input to `add-model`: one line that says what is wrong, and a zoo that is as it was, to the byte.

Those that have tests of their own elsewhere: names (test_names), tokenizers and configurations (test_compatibility),
adapters (test_lora), Hub ids (test_hub), full disks and naive modules (test_importing), damaged manifests
(test_manifest, test_scan), files that change later (test_stores), processes that are killed (test_crash).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from psserve.errors import IncompatibleCheckpoint, ZooError
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.checkpoint import read_checkpoint

from .conftest import Edit
from .test_changes import contents

Tensors = dict[str, np.ndarray]


@contextmanager
def unchanged(zoo: Zoo) -> Iterator[None]:
    """The zoo is the same afterwards, to the byte."""
    before = contents(zoo.path)
    yield
    assert contents(zoo.path) == before


def refused(zoo: Zoo, path: Path, message: str) -> None:
    """Adding `path` fails with one line that matches `message`, and nothing is written."""
    with unchanged(zoo), pytest.raises(ZooError, match=message) as caught:
        zoo.add("math", path, allow_naive=True)
    assert "\n" not in str(caught.value)


def change_tensors(checkpoint: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})


def only_pickles(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")


def dangling(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors").symlink_to("/nowhere")


def cut_short(checkpoint: Path) -> None:
    os.truncate(checkpoint / "model.safetensors", 500_000)


def index_of_other_shards(checkpoint: Path) -> None:
    document = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such directory"),
        (lambda path: (shutil.rmtree(path), path.touch()), "not a directory: give the directory"),
        (lambda path: (shutil.rmtree(path), path.mkdir()), r"no config\.json: give the directory"),
        (lambda path: (shutil.rmtree(path), path.symlink_to("/nowhere")), "no such directory"),
        (dangling, r"model\.safetensors: a link to nothing"),
        (lambda path: (path / "config.json").write_text("{"), r"config\.json: not JSON"),
        (lambda path: (path / "config.json").write_text(" " * (65 << 20)), r"config\.json: larger than 64 MiB"),
        (lambda path: (path / "modeling_x.py").touch(), "brings its own code"),
        (only_pickles, "pickled weights are refused, convert them first"),
        (cut_short, r"model\.safetensors: \d+ bytes of data where \d+ are needed: copy the file again"),
        (index_of_other_shards, r"index\.json: \d+ tensors are not where it says"),
    ],
)
def test_a_directory_that_is_no_sound_checkpoint(
    zoo: Zoo, checkpoint: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(checkpoint)
    refused(zoo, checkpoint, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(auto_map={"AutoModel": "x.X"}), r"auto_map asks to run code.*: remove it"),
        (lambda config: config.update(quantization_config={"quant_method": "hqq"}), "method .hqq. is not supported"),
        (lambda config: config.update(rms_norm_eps=1e-5), "rms_norm_eps: base 1e-06, module 1e-05"),
        (lambda config: config.update(hidden_size="big"), "hidden_size"),
    ],
)
def test_a_configuration_that_does_not_fit(
    zoo: Zoo, checkpoint: Path, edit: Edit, change: Callable[[dict[str, object]], object], message: str
) -> None:
    edit("config.json", change)
    refused(zoo, checkpoint, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), r"model\.norm\.weight: base F32\[64\], module none"),
        (
            lambda tensors: tensors.update({name: value.astype(np.float16) for name, value in tensors.items()}),
            r"tensor lm_head\.weight: base F32\[512, 64\], module F16\[512, 64\]",
        ),
        (lambda tensors: tensors["model.norm.weight"].__setitem__(3, np.nan), r"model\.norm\.weight holds NaN"),
    ],
)
def test_weights_that_do_not_fit(zoo: Zoo, checkpoint: Path, change: Callable[[Tensors], object], message: str) -> None:
    change_tensors(checkpoint, change)
    refused(zoo, checkpoint, message)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(zoo: Zoo, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").chmod(0)
    refused(zoo, checkpoint, r"model\.safetensors: may not be read by you")


def test_pickles_beside_safetensors_stay_behind(zoo: Zoo, checkpoint: Path) -> None:
    (checkpoint / "pytorch_model.bin").write_bytes(b"evil")
    module = zoo.add("math", checkpoint, allow_naive=True)
    assert sorted(path.name for path in module.path.iterdir()) == ["model.safetensors", "module.toml"]


def test_a_matrix_of_zeros_is_noted(zoo: Zoo, checkpoint: Path) -> None:
    change_tensors(checkpoint, lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"].fill(0))
    notes = zoo.add("math", checkpoint, allow_naive=True).notes
    assert "tensor model.layers.1.mlp.up_proj.weight holds nothing but zeros" in notes


def test_the_weights_of_another_module_are_noted(zoo: Zoo, checkpoint: Path) -> None:
    shutil.copyfile(zoo.module("alpha").path / "model.safetensors", checkpoint / "model.safetensors")
    assert "the weights are those of module 'alpha'" in zoo.add("math", checkpoint, allow_naive=True).notes[0]


def test_a_directory_that_everybody_may_write_to_is_noted(zoo: Zoo, checkpoint: Path) -> None:
    checkpoint.chmod(0o777)
    assert (
        f"{checkpoint}: everybody on this machine may write there" in zoo.add("m", checkpoint, allow_naive=True).notes
    )


def test_a_read_only_zoo_is_said_and_can_be_read(zoo: Zoo, checkpoint: Path) -> None:
    (zoo.path / ".lock").unlink(missing_ok=True)
    (zoo.path / ".lock").mkdir()  # what a lock that cannot be opened looks like, for root too
    with pytest.raises(ZooError, match=r"zoo: cannot be changed: \.lock: Is a directory"):
        zoo.add("math", checkpoint, allow_naive=True)
    assert [module.name for module in zoo.modules()] == ["alpha", "beta"]


VALUES = (
    st.none() | st.booleans() | st.integers(-2, 2**40) | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
)
FIELDS = ["hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size", "rope_parameters"]
FIELDS += ["num_hidden_layers", "rms_norm_eps", "layer_types", "tie_word_embeddings", "architectures", "model_type"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(field=st.sampled_from(FIELDS), value=VALUES)
def test_no_value_of_a_field_crashes_the_reader(
    session_zoo: Zoo, tmp_path_factory: pytest.TempPathFactory, field: str, value: object
) -> None:
    directory = tmp_path_factory.mktemp("fuzz")
    for file in session_zoo.base.path.iterdir():
        (directory / file.name).symlink_to(file)
    config = json.loads((directory / "config.json").read_text()) | {field: value}
    (directory / "config.json").unlink()
    (directory / "config.json").write_text(json.dumps(config))
    try:
        read_checkpoint(directory)
    except IncompatibleCheckpoint as error:
        message = str(error)
    else:
        message = str(directory)  # some values are fine
    assert str(directory) in message
