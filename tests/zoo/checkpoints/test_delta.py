from __future__ import annotations

import io
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from psserve.zoo.checkpoints import delta
from psserve.zoo.checkpoints.delta import DamagedDelta, decode, elements, encode_delta, fold, pack_block, unfold, unpack
from psserve.zoo.checkpoints.safetensors import BLOCK, EMBEDDINGS, HEAD, Weights, weight_file

DTYPES = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_]
WIDTHS = st.sampled_from([1, 2, 4, 8])


def rebuilt(file: Path, base: Path) -> bytes:
    """`file`, through a delta to `base`."""
    weights = Weights([base])
    return b"".join(decode(io.BytesIO(b"".join(encode_delta(weight_file(file), weights))), weights))


@given(width=WIDTHS, values=st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_folding_is_reversible(width: int, values: list[int]) -> None:
    words = elements(np.array(values, "<u8").tobytes(), width)
    assert (unfold(fold(words)) == words).all()


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_folded_numbers_grow_with_the_distance(width: int) -> None:
    steps = np.array([0, -1, 1, -2, 2, -100, 100], f"<i{width}").view(f"<u{width}")
    assert all(one < other for one, other in pairwise(fold(steps).tolist()))


@given(width=WIDTHS, data=st.data())
def test_a_block_comes_back_bit_for_bit(width: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 64))
    block, reference = (data.draw(st.binary(min_size=width * count, max_size=width * count)) for _ in range(2))
    for against in (None, reference, block):
        packed = io.BytesIO(b"".join(pack_block(block, against, width)))
        assert unpack(packed, against, width) == block
        assert packed.read() == b""


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_type_comes_back_bit_for_bit(tmp_path: Path, dtype: type[np.generic]) -> None:
    random = np.random.default_rng(0)
    base = {name: np.frombuffer(random.bytes(48), np.uint8).view(dtype) for name in "abc"}
    module = base | {"b": base["c"], "new": base["a"], "c": base["c"].reshape(2, -1), "empty": base["a"][:0]}
    save_file(base, tmp_path / "base.safetensors")
    save_file(module, tmp_path / "module.safetensors", metadata={"format": "pt", "who": "ann"})
    assert (
        rebuilt(tmp_path / "module.safetensors", tmp_path / "base.safetensors")
        == (tmp_path / "module.safetensors").read_bytes()
    )


def test_tensors_of_several_blocks_come_back_bit_for_bit(tmp_path: Path) -> None:
    base = np.random.default_rng(0).standard_normal(BLOCK // 4 * 2 + 5).astype(np.float32)
    module = base.copy()
    module[[0, BLOCK // 4, -1]] += 1e-3
    save_file({"x": base}, tmp_path / "base.safetensors")
    save_file({"x": module}, tmp_path / "module.safetensors")
    assert (
        rebuilt(tmp_path / "module.safetensors", tmp_path / "base.safetensors")
        == (tmp_path / "module.safetensors").read_bytes()
    )


def test_a_tied_output_layer_is_compared_with_the_embeddings(tmp_path: Path) -> None:
    """The base has none, but some tools store it with the module."""
    embeddings = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    save_file({EMBEDDINGS: embeddings}, tmp_path / "base.safetensors")
    save_file({EMBEDDINGS: embeddings, HEAD: embeddings}, tmp_path / "module.safetensors")
    encoded = b"".join(
        encode_delta(weight_file(tmp_path / "module.safetensors"), Weights([tmp_path / "base.safetensors"]))
    )
    assert len(encoded) < 400
    assert (
        rebuilt(tmp_path / "module.safetensors", tmp_path / "base.safetensors")
        == (tmp_path / "module.safetensors").read_bytes()
    )


@given(at=st.integers(0, 10_000), change=st.integers(1, 255))
def test_a_damaged_delta_is_refused_or_gives_other_bytes(
    tmp_path_factory: pytest.TempPathFactory, at: int, change: int
) -> None:
    """Never anything but DamagedDelta; wrong bytes are found by their hash."""
    path = tmp_path_factory.mktemp("delta") / "a.safetensors"
    save_file({"x": np.arange(64, dtype=np.float32), "y": np.arange(8)}, path)
    base = Weights([])
    encoded = bytearray(b"".join(encode_delta(weight_file(path), base)))
    encoded[at % len(encoded)] ^= change
    with suppress(DamagedDelta):
        b"".join(decode(io.BytesIO(encoded), base))


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(content: bytes) -> None:
    for damaged in (content, delta.MAGIC + content):
        with pytest.raises(DamagedDelta):
            b"".join(decode(io.BytesIO(damaged), Weights([])))
