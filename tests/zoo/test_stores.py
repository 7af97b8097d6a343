from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from psserve.errors import ManifestError, UsageError, ZooError
from psserve.zoo import Module, Zoo
from psserve.zoo.disk.transactions import REBUILT
from psserve.zoo.materialise import materialise
from psserve.zoo.stores import checkpoint_files

METADATA = {"format": "pt"}


@pytest.fixture
def tuned(checkpoint: Path) -> Path:
    """A checkpoint of which the half of the tensors moved a little."""
    random = np.random.default_rng(0)
    tensors = load_file(checkpoint / "model.safetensors")
    for name in sorted(tensors)[::2]:
        tensors[name] += random.standard_normal(tensors[name].shape, np.float32) * 1e-3
    save_file(tensors, checkpoint / "model.safetensors", METADATA)
    return checkpoint


def split(checkpoint: Path) -> None:
    """Make two shards and an index of a checkpoint's file."""
    tensors = load_file(checkpoint / "model.safetensors")
    names = sorted(tensors)
    shards = {f"model-0000{part + 1}-of-00002.safetensors": names[part::2] for part in range(2)}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, checkpoint / shard, METADATA)
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (checkpoint / "model.safetensors").unlink()


def contents(files: dict[str, Path]) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files.items()}


def weights(checkpoint: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors*")}


def add_delta(zoo: Zoo, checkpoint: Path) -> Module:
    return zoo.add("math", checkpoint, allow_naive=True, store="delta")


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("store", ["copy", "link", "delta"])
def test_every_store_gives_back_the_files_bit_for_bit(
    zoo: Zoo, tuned: Path, tmp_path: Path, store: str, sharded: bool
) -> None:
    if sharded:
        split(tuned)
    module = zoo.add("math", tuned, allow_naive=True, store=store)
    assert contents(checkpoint_files(zoo.base, module, tmp_path / "cache")) == weights(tuned)
    assert {file.name: file.size for file in module.files} == {n: len(content) for n, content in weights(tuned).items()}


def test_a_delta_is_smaller_and_has_no_complete_file(zoo: Zoo, tuned: Path) -> None:
    module = add_delta(zoo, tuned)
    assert sorted(path.name for path in module.path.iterdir()) == ["model.safetensors.delta", "module.toml"]
    assert module.disk_bytes < 0.6 * module.weight_bytes


def test_a_module_of_the_bases_weights_is_a_delta_of_next_to_nothing(zoo: Zoo, checkpoint: Path) -> None:
    assert add_delta(zoo, checkpoint).disk_bytes < 2000


def test_rebuilt_files_are_kept_and_used_again(zoo: Zoo, tuned: Path, tmp_path: Path) -> None:
    module = add_delta(zoo, tuned)
    first = checkpoint_files(zoo.base, module, tmp_path / "cache")["model.safetensors"]
    again = checkpoint_files(zoo.base, module, tmp_path / "cache")["model.safetensors"]
    assert (first, first.stat().st_ino) == (again, again.stat().st_ino)


def test_a_rebuilt_file_that_was_cut_short_is_rebuilt(zoo: Zoo, tuned: Path, tmp_path: Path) -> None:
    module = add_delta(zoo, tuned)
    path = checkpoint_files(zoo.base, module, tmp_path / "cache")["model.safetensors"]
    os.truncate(path, 1000)
    assert contents(checkpoint_files(zoo.base, module, tmp_path / "cache")) == weights(tuned)


def test_the_files_of_an_older_version_and_of_a_killed_rebuild_go(zoo: Zoo, tuned: Path, tmp_path: Path) -> None:
    checkpoint_files(zoo.base, add_delta(zoo, tuned), tmp_path / "cache")
    (tmp_path / "cache" / "0123.building").mkdir()
    shutil.copyfile(zoo.module("alpha").path / "model.safetensors", tuned / "model.safetensors")
    newer = zoo.add("math", tuned, allow_naive=True, store="delta", replace=True)
    path = checkpoint_files(zoo.base, newer, tmp_path / "cache")["model.safetensors"]
    assert [entry.name for entry in (tmp_path / "cache").iterdir() if entry.is_dir()] == [path.parent.name]


def test_a_delta_is_materialised_as_links_into_the_zoo(zoo: Zoo, tuned: Path, tmp_path: Path) -> None:
    out = materialise(zoo, add_delta(zoo, tuned), tmp_path / "out")
    assert (out / "model.safetensors").readlink().is_relative_to(zoo.path / REBUILT / "math")
    assert (out / "model.safetensors").read_bytes() == (tuned / "model.safetensors").read_bytes()


def test_a_damaged_delta_is_refused_with_its_name(zoo: Zoo, tuned: Path, tmp_path: Path) -> None:
    module = add_delta(zoo, tuned)
    path = module.path / "model.safetensors.delta"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"model\.safetensors\.delta: (damaged|does not give what it was made of)"):
        checkpoint_files(zoo.base, module, tmp_path / "cache")


def test_another_base_is_noticed(zoo: Zoo, tuned: Path, tmp_path: Path) -> None:
    module = add_delta(zoo, tuned)
    shutil.copyfile(zoo.module("alpha").path / "model.safetensors", zoo.base.path / "model.safetensors")
    with pytest.raises(ManifestError, match="a file of the base is damaged"):
        checkpoint_files(zoo.base, module, tmp_path / "cache")


def test_no_room_to_rebuild_is_said_before_anything_is_written(
    zoo: Zoo, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = add_delta(zoo, tuned)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ZooError, match=r"cache: 1\.1 MB needed, 0\.0 MB free"):
        checkpoint_files(zoo.base, module, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_linked_module_holds_no_weights(zoo: Zoo, tuned: Path) -> None:
    module = zoo.add("math", tuned, allow_naive=True, store="link")
    assert [path.name for path in module.path.iterdir()] == ["module.toml"]
    assert (module.disk_bytes, module.links["model.safetensors"].path) == (0, str(tuned / "model.safetensors"))


def test_a_link_to_a_file_of_another_time_but_the_same_content_is_fine(zoo: Zoo, tuned: Path, tmp_path: Path) -> None:
    module = zoo.add("math", tuned, allow_naive=True, store="link")
    os.utime(tuned / "model.safetensors", (1, 1))
    assert contents(checkpoint_files(zoo.base, module, tmp_path)) == weights(tuned)


def test_a_link_to_a_file_that_changed_is_refused(zoo: Zoo, tuned: Path, tmp_path: Path) -> None:
    module = zoo.add("math", tuned, allow_naive=True, store="link")
    shutil.copyfile(zoo.module("alpha").path / "model.safetensors", tuned / "model.safetensors")
    with pytest.raises(ManifestError, match="changed since module 'math' was linked to it: restore it, or add"):
        checkpoint_files(zoo.base, module, tmp_path)


def test_a_link_to_a_file_that_is_gone_is_refused_and_others_are_listed(zoo: Zoo, tuned: Path) -> None:
    zoo.add("math", tuned, allow_naive=True, store="link")
    (tuned / "model.safetensors").unlink()
    with pytest.raises(ManifestError, match=r"model\.safetensors: missing"):
        zoo.module("math")
    assert [module.name for module in zoo.modules()] == ["alpha", "beta"]


def test_an_adapter_cannot_be_linked(zoo: Zoo, tmp_path: Path) -> None:
    from tests.zoo.checkpoints.test_lora import make_adapter

    adapter = make_adapter(zoo.base.path, tmp_path / "adapter")
    with pytest.raises(UsageError, match="--store link needs weights on disk"):
        zoo.add("math", adapter, allow_naive=True, store="link")
