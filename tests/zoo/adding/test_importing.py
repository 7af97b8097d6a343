from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from safetensors.numpy import load_file, save_file

from psserve.errors import IncompatibleCheckpoint, ModuleExists, UsageError, ZooError
from psserve.zoo import Zoo
from psserve.zoo.disk import storage
from psserve.zoo.disk.manifest import Store
from psserve.zoo.disk.storage import lock
from tests.zoo.full_disk import largest_file


def snapshot(zoo: Zoo) -> dict[str, int]:
    """Every file of the zoo but its lock, with its size."""
    files = (path for path in zoo.path.rglob("*") if path.name != ".lock")
    return {str(path): path.stat().st_size for path in files if path.is_file()}


def randomise(checkpoint: Path) -> None:
    """Give every weight another value."""
    tensors = load_file(checkpoint / "model.safetensors")
    generator = np.random.default_rng(0)
    changed = {name: generator.standard_normal(tensor.shape, np.float32) for name, tensor in tensors.items()}
    save_file(changed, checkpoint / "model.safetensors", metadata={"format": "pt"})


def write_record(checkpoint: Path, **fields: object) -> None:
    (checkpoint / "psserve_training.json").write_text(json.dumps(fields))


@pytest.mark.parametrize("said", [{"task": "sums\udcff"}, {"examples": ["1+1?\udcff"]}])
def test_texts_that_no_manifest_can_hold_are_refused_before_anything_is_read(zoo: Zoo, said: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        zoo.add("math", zoo.path / "nowhere", allow_naive=True, **said)


def test_an_imported_module_is_listed_with_all_that_was_said(zoo: Zoo, checkpoint: Path) -> None:
    before = int(time.time())
    module = zoo.add("math", checkpoint, "sums", ["1+1?"], ["maths"], allow_naive=True)
    assert zoo.module("maths") == module
    assert (module.task, module.examples, module.aliases) == ("sums", ("1+1?",), ("maths",))
    assert (module.kind, module.base_fingerprint) == ("naive", zoo.base.fingerprint)
    assert before <= module.created <= time.time()


def test_weights_are_copied_and_recorded(zoo: Zoo, checkpoint: Path) -> None:
    module = zoo.add("math", checkpoint, allow_naive=True)
    content = (checkpoint / "model.safetensors").read_bytes()
    assert [(file.name, file.size) for file in module.files] == [("model.safetensors", len(content))]
    assert module.files[0].blake3 == blake3(content).hexdigest()
    assert (module.path / "model.safetensors").read_bytes() == content
    assert module.weight_bytes == len(content)


def test_only_weights_and_manifest_are_in_a_module(zoo: Zoo, checkpoint: Path) -> None:
    (checkpoint / "optimizer.pt").touch()
    module = zoo.add("math", checkpoint, allow_naive=True)
    assert sorted(path.name for path in module.path.iterdir()) == ["model.safetensors", "module.toml"]


def test_a_checkpoint_trained_on_this_base_is_cache_conditioned(zoo: Zoo, checkpoint: Path) -> None:
    write_record(checkpoint, method="cache-conditioned", base_fingerprint=zoo.base.fingerprint)
    module = zoo.add("math", checkpoint)
    assert module.kind == "cache-conditioned"
    assert module.training is not None


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, r"no psserve_training\.json says"),
        ({"method": "cache-conditioned", "base_fingerprint": "0" * 64}, "trained with another base"),
        ({"method": "full"}, "its training method is 'full'"),
    ],
)
def test_a_naive_checkpoint_needs_the_flag(
    zoo: Zoo, checkpoint: Path, record: dict[str, str] | None, message: str
) -> None:
    if record is not None:
        write_record(checkpoint, **{"base_fingerprint": zoo.base.fingerprint} | record)
    with pytest.raises(IncompatibleCheckpoint, match=f"{message}.*--allow-naive"):
        zoo.add("math", checkpoint)
    assert zoo.add("math", checkpoint, allow_naive=True).kind == "naive"


@pytest.mark.parametrize("allow_naive", [False, True])
def test_a_rule_that_no_server_follows_is_refused_by_name(zoo: Zoo, checkpoint: Path, allow_naive: bool) -> None:
    write_record(checkpoint, method="icarus", base_fingerprint=zoo.base.fingerprint)
    with pytest.raises(IncompatibleCheckpoint, match=r"trained by ICaRus' rule \(psserve finetune --icarus\)"):
        zoo.add("math", checkpoint, allow_naive=allow_naive)
    assert "math" not in {module.name for module in zoo.modules()}


def test_a_training_record_with_unknown_fields_is_refused(zoo: Zoo, checkpoint: Path) -> None:
    write_record(checkpoint, method="full", base_fingerprint=zoo.base.fingerprint, colour="red")
    with pytest.raises(IncompatibleCheckpoint, match="colour"):
        zoo.add("math", checkpoint, allow_naive=True)


def test_a_copy_of_the_base_is_noted(zoo: Zoo, checkpoint: Path) -> None:
    assert "the base's own" in zoo.add("math", checkpoint, allow_naive=True).notes[0]
    assert zoo.module("alpha").notes == ()


def test_a_different_chat_template_is_recorded(zoo: Zoo, checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("{{ messages }}")
    assert "chat template differs" in zoo.add("math", checkpoint, allow_naive=True).notes[0]


@pytest.mark.parametrize("name", ["alpha", "qwen3-tiny"])
def test_a_name_in_use_is_refused(zoo: Zoo, checkpoint: Path, name: str) -> None:
    with pytest.raises(ModuleExists):
        zoo.add(name, checkpoint, allow_naive=True)


def test_an_alias_in_use_is_refused(zoo: Zoo, checkpoint: Path) -> None:
    with pytest.raises(ModuleExists, match="'alpha' is taken by module 'alpha'"):
        zoo.add("math", checkpoint, aliases=["alpha"], allow_naive=True)


@pytest.mark.parametrize(("name", "aliases"), [("auto", []), ("math", ["../x"])])
def test_a_bad_name_or_alias_is_refused(zoo: Zoo, checkpoint: Path, name: str, aliases: list[str]) -> None:
    with pytest.raises(UsageError):
        zoo.add(name, checkpoint, aliases=aliases, allow_naive=True)


def test_a_refused_import_leaves_the_zoo_as_it_was(zoo: Zoo, checkpoint: Path) -> None:
    before = snapshot(zoo)
    (checkpoint / "model.safetensors").write_bytes(b"x")
    with pytest.raises(IncompatibleCheckpoint):
        zoo.add("math", checkpoint, allow_naive=True)
    assert snapshot(zoo) == before


@pytest.mark.parametrize("store", ["copy", "delta"])
def test_a_disk_that_fills_up_leaves_the_zoo_as_it_was(zoo: Zoo, checkpoint: Path, store: Store) -> None:
    before = snapshot(zoo)
    randomise(checkpoint)  # or there would be no difference to write
    with largest_file(100_000), pytest.raises(ZooError, match="File too large: make room"):
        zoo.add("math", checkpoint, allow_naive=True, store=store)
    assert snapshot(zoo) == before


def test_a_disk_without_room_is_refused_before_anything_is_written(
    zoo: Zoo, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(zoo.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    before = snapshot(zoo)
    with pytest.raises(ZooError, match=rf"{zoo.path}: 1\.1 MB needed, 1\.0 MB free: make room"):
        zoo.add("math", checkpoint, allow_naive=True)
    assert snapshot(zoo) == before


def test_what_a_killed_import_left_is_no_module_and_is_no_obstacle(zoo: Zoo, checkpoint: Path) -> None:
    for left in (zoo.path / ".importing", zoo.path / "modules" / "math"):
        left.mkdir()
        (left / "model.safetensors").write_bytes(b"half")
    assert [module.name for module in zoo.modules()] == ["alpha", "beta"]
    module = zoo.add("math", checkpoint, allow_naive=True)
    assert (module.path / "model.safetensors").stat().st_size == module.weight_bytes
    assert not (zoo.path / ".importing").exists()


def test_what_a_killed_import_was_replacing_comes_back(zoo: Zoo, checkpoint: Path) -> None:
    (zoo.path / "modules" / "alpha").rename(zoo.path / ".replaced")
    zoo.add("gamma", checkpoint, allow_naive=True)
    assert [module.name for module in zoo.modules()] == ["alpha", "beta", "gamma"]
    assert not (zoo.path / ".replaced").exists()


def test_a_second_import_waits_and_then_says_who_is_at_it(
    zoo: Zoo, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LOCK_WAIT_S", 0.1)
    with lock(zoo.path / ".lock"), pytest.raises(ZooError, match=rf"process {os.getpid()}\) is changing this zoo"):
        zoo.add("math", checkpoint, allow_naive=True)


def test_a_sharded_checkpoint_keeps_its_index(zoo: Zoo, checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    shards = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        shards[sorted(shards)[number % 2]][name] = tensor
    for shard, content in shards.items():
        save_file(content, checkpoint / shard)
    weight_map = {name: shard for shard, content in shards.items() for name in content}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    module = zoo.add("math", checkpoint, allow_naive=True)
    assert [file.name for file in module.files] == [*sorted(shards), "model.safetensors.index.json"]
