from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.safetensors import INDEX, read_header, read_tensors


def save(directory: Path, shard: str, **tensors: tuple[int, ...]) -> None:
    save_file({name: np.zeros(shape, np.float32) for name, shape in tensors.items()}, directory / shard)


def test_names_types_and_shapes_are_those_that_were_saved(tmp_path: Path) -> None:
    save(tmp_path, "a.safetensors", x=(2, 3), empty=(0,))
    tensors = read_tensors(tmp_path)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} == {
        "x": ("F32", (2, 3)),
        "empty": ("F32", (0,)),
    }


@pytest.mark.parametrize("lost", [1, 4, 23, 24, 60])
def test_a_truncated_shard_is_refused(tmp_path: Path, lost: int) -> None:
    save(tmp_path, "a.safetensors", x=(2, 3))
    path = tmp_path / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(IncompatibleCheckpoint, match=r"a\.safetensors"):
        read_tensors(tmp_path)


def test_trailing_bytes_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "a.safetensors", x=(2, 3))
    path = tmp_path / "a.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(IncompatibleCheckpoint, match="25 bytes of data where 24 are needed"):
        read_tensors(tmp_path)


@given(st.binary(max_size=100))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("shard") / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(IncompatibleCheckpoint):
        read_header(path)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_no_json_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, header: object) -> None:
    path = tmp_path_factory.mktemp("shard") / "a.safetensors"
    if isinstance(header, dict):
        header.pop("__metadata__", None)
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    if header == {}:
        assert read_header(path) == {}
    else:
        with pytest.raises(IncompatibleCheckpoint):
            read_header(path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "a.safetensors", x=(1,))
    save(tmp_path, "b.safetensors", x=(1,))
    with pytest.raises(IncompatibleCheckpoint, match=r"x is in a\.safetensors too"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    "weight_map", [{}, {"x": "b.safetensors"}, {"x": "a.safetensors", "y": "b.safetensors"}, {"x": 3}, None]
)
def test_an_index_that_disagrees_with_the_shards_is_refused(tmp_path: Path, weight_map: object) -> None:
    save(tmp_path, "a.safetensors", x=(1,))
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(IncompatibleCheckpoint, match="index"):
        read_tensors(tmp_path)


def test_an_index_that_agrees_is_accepted(tmp_path: Path) -> None:
    save(tmp_path, "a.safetensors", x=(1,))
    save(tmp_path, "b.safetensors", y=(1,))
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    assert read_tensors(tmp_path).keys() == {"x", "y"}
