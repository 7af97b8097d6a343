from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from psserve.errors import ManifestError, UsageError, ZooError
from psserve.zoo import Zoo
from psserve.zoo.adding.incoming import TRAINING_RECORD
from psserve.zoo.export import export_module
from psserve.zoo.materialise import materialise


def export(zoo: Zoo, name: str, destination: Path) -> Path:
    return export_module(zoo, zoo.module(name), destination)


def test_a_destination_that_leads_nowhere_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for destination in (Path("~no-such-user/x"), tmp_path / "loop"):
        with pytest.raises(UsageError, match="leads nowhere"):
            export(zoo, "alpha", destination)


def shard(checkpoint: Path, parts: int) -> None:
    """Spread the weights of a checkpoint over `parts` files with an index."""
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = [f"model-{part + 1:05}-of-{parts:05}.safetensors" for part in range(parts)]
    weight_map = {name: names[number % parts] for number, name in enumerate(sorted(tensors))}
    for file in names:
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, checkpoint / file)
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def tensors_of(checkpoint: Path) -> dict[str, np.ndarray]:
    """All tensors, whichever files they are in."""
    return {name: tensor for path in checkpoint.glob("*.safetensors") for name, tensor in load_file(path).items()}


@given(seed=st.integers(0, 2**32 - 1), parts=st.integers(1, 3), store=st.sampled_from(["copy", "link", "delta"]))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_exported_is_what_was_added(
    zoo: Zoo, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, parts: int, store: str
) -> None:
    source = tmp_path_factory.mktemp("source")
    for file in checkpoint.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    random = np.random.default_rng(seed)
    original = {name: random.standard_normal(t.shape, np.float32) for name, t in tensors_of(source).items()}
    save_file(original, source / "model.safetensors")
    if parts > 1:
        shard(source, parts)
    zoo.add("math", source, allow_naive=True, replace=True, store=store)
    out = export(zoo, "math", tmp_path_factory.mktemp("out") / "math")
    exported = tensors_of(out)
    assert exported.keys() == original.keys()
    assert all(exported[name].tobytes() == original[name].tobytes() for name in original)
    assert {path.name for path in out.iterdir()} == {path.name for path in source.iterdir()}


def test_transformers_loads_it_with_tokenizer_and_template(zoo: Zoo, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = export(zoo, "alpha", tmp_path / "deep" / "alpha")
    model = AutoModelForCausalLM.from_pretrained(out)
    expected = load_file(zoo.module("alpha").path / "model.safetensors")
    assert {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()} == {
        name: tensor.tobytes() for name, tensor in expected.items()
    }
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)


def test_it_is_what_a_server_loads(zoo: Zoo, tmp_path: Path) -> None:
    served = materialise(zoo, zoo.module("alpha"), tmp_path / "served")
    out = export(zoo, "alpha", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in served.iterdir()
    }
    assert not any(path.is_symlink() for path in out.iterdir())


def test_the_training_record_goes_along(zoo: Zoo, checkpoint: Path, tmp_path: Path) -> None:
    record = {"method": "cache-conditioned", "base_fingerprint": zoo.base.fingerprint, "seed": 7}
    (checkpoint / TRAINING_RECORD).write_text(json.dumps(record))
    module = zoo.add("math", checkpoint)
    again = zoo.add("again", export(zoo, "math", tmp_path / "out"))
    assert (again.training, again.kind) == (module.training, "cache-conditioned")


def test_nothing_is_overwritten(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    for name, why in (("full", "not empty"), ("file", "a file"), ("zoo", "inside the zoo")):
        with pytest.raises(ZooError, match=why):
            export(zoo, "alpha", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "zoo"]


def test_an_empty_directory_is_filled(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert (export(zoo, "alpha", tmp_path / "out") / "config.json").exists()


def test_damaged_weights_are_not_exported(zoo: Zoo, tmp_path: Path) -> None:
    weights = zoo.module("alpha").path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ManifestError, match=r"model\.safetensors: changed since it was recorded"):
        export(zoo, "alpha", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["zoo"]


def test_what_a_killed_export_left_is_no_obstacle(zoo: Zoo, tmp_path: Path) -> None:
    left = tmp_path / ".out.exporting"
    (left / "directory").mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    assert sorted(path.name for path in export(zoo, "alpha", tmp_path / "out").iterdir()) == sorted(
        path.name for path in zoo.base.path.iterdir()
    )
    assert not left.exists()


def test_two_exports_to_one_place_are_refused(zoo: Zoo, tmp_path: Path) -> None:
    other = tmp_path / ".out.exporting"
    other.mkdir()
    descriptor = os.open(other, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(ZooError, match="another command is exporting to it"):
            export(zoo, "alpha", tmp_path / "out")
        assert other.exists()
    finally:
        os.close(descriptor)
