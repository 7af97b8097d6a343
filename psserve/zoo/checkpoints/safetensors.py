"""Safetensors files as streams: a header, then the bytes of each tensor, a few megabytes at a time.

What is imported is read, checked, hashed and stored through these streams, so that memory stays small whatever the
model's size, and so that a file that only exists as a computation (a merged adapter) is handled like one on disk.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field, TypeAdapter, ValidationError

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.disk.manifest import Record, first_problem
from psserve.zoo.disk.progress import SILENT, Progress, with_progress

INDEX = "model.safetensors.index.json"
MAX_HEADER = 100 << 20
"""The limit that the safetensors library itself puts on a header, in bytes."""
DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
EXPONENT_BITS: dict[str, tuple[str, int]] = {
    "F64": ("uint64", 0x7FF0_0000_0000_0000),
    "F32": ("uint32", 0x7F80_0000),
    "F16": ("uint16", 0x7C00),
    "BF16": ("uint16", 0x7F80),
    "F8_E4M3": ("uint8", 0x7F),
}
"""Element type -> (unsigned type of its width, exponent's bits): NaN and infinity are the values with all of them set.
On bits, because NumPy has no bfloat16. This FP8 has no infinity, and NaN is all bits but the sign."""
BLOCK = 4 << 20
"""Bytes of a tensor that are in memory at a time; a multiple of every element's size."""
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""The two weights that a configuration may tie: input embeddings, and output layer."""
METADATA = TypeAdapter(dict[str, str])


class Tensor(Record):
    """One entry of a safetensors header: element type, shape, and byte range within the file's data."""

    dtype: str
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    data_offsets: tuple[int, int]

    @property
    def size(self) -> int:
        """Bytes of its data."""
        return self.data_offsets[1] - self.data_offsets[0]


HEADER = TypeAdapter(dict[str, Tensor])
WEIGHT_MAP = TypeAdapter(dict[str, str])


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint directory, by name.

    Raises IncompatibleCheckpoint for a damaged or truncated shard, a tensor that occurs twice, or an index that does
    not say the same as the shards.
    """
    tensors: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    for path in sorted(directory.glob("*.safetensors")):
        for name, tensor in read_header(path).items():
            if name in tensors:
                raise IncompatibleCheckpoint(f"{path}: tensor {name} is in {places[name]} too: remove the stray shard")
            tensors[name] = tensor
            places[name] = path.name
    check_index(directory, places)
    return tensors


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, in the order of their data; IncompatibleCheckpoint if it is damaged."""
    head = read_head(path)
    try:
        tensors = parse_header(head[8:])
    except ValidationError as error:
        raise IncompatibleCheckpoint(
            f"{path}: bad safetensors header ({first_problem(error)}): copy it again"
        ) from None
    except (ValueError, RecursionError):
        raise IncompatibleCheckpoint(f"{path}: bad safetensors header (not JSON): copy it again") from None
    check_data(path, tensors, path.stat().st_size - len(head))
    return tensors


def read_head(path: Path) -> bytes:
    """The first bytes of a safetensors file: the header's length, and the header (JSON)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise IncompatibleCheckpoint(f"{path}: not a safetensors file, or truncated: copy it again")
        return prefix + file.read(length)


def parse_header(header: bytes) -> dict[str, Tensor]:
    """The tensors that a header describes, in the order of their data. Raises ValueError or RecursionError."""
    document = json.loads(header)
    if isinstance(document, dict):
        METADATA.validate_python(document.pop("__metadata__", {}))
    tensors = HEADER.validate_python(document)
    return dict(sorted(tensors.items(), key=lambda item: item[1].data_offsets))


def check_data(path: Path, tensors: dict[str, Tensor], available: int) -> None:
    """Check that the tensors fill the file's data (`available` bytes) one after the other: no gap, no overlap."""
    end = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPE_BYTES:
            raise IncompatibleCheckpoint(f"{path}: tensor {name} has element type {tensor.dtype}: not supported")
        begin, stop = tensor.data_offsets
        if begin != end or stop - begin != DTYPE_BYTES[tensor.dtype] * prod(tensor.shape):
            raise IncompatibleCheckpoint(f"{path}: tensor {name} has a wrong byte range: copy the file again")
        end = stop
    if end != available:
        raise IncompatibleCheckpoint(f"{path}: {available} bytes of data where {end} are needed: copy the file again")


def check_index(directory: Path, places: dict[str, str]) -> None:
    """Check that the index, if there is one, puts every tensor where the shards have it."""
    path = directory / INDEX
    if not path.exists():
        return
    try:
        index = WEIGHT_MAP.validate_python(json.loads(path.read_bytes())["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise IncompatibleCheckpoint(f"{path}: not an index with a weight_map: copy it again") from None
    wrong = sorted(name for name in index.keys() | places.keys() if index.get(name) != places.get(name))
    if wrong:
        shown = ", ".join(f"{name} ({index.get(name, 'not in index')})" for name in wrong[:5])
        raise IncompatibleCheckpoint(f"{path}: {len(wrong)} tensors are not where it says: {shown}")


class ReadTensor(Protocol):
    """Reads a tensor's bytes in blocks of `size` (the last one may be shorter)."""

    def __call__(self, name: str, size: int = BLOCK) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class WeightFile:
    """One safetensors file that is to be stored.

    `head` is the header as it is in the file, with its length before it; `tensors` are in the order of their data.
    """

    name: str
    head: bytes
    tensors: dict[str, Tensor]
    read: ReadTensor

    @cached_property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.head) + sum(tensor.size for tensor in self.tensors.values())

    def blocks(self) -> Iterator[bytes]:
        """The whole file."""
        yield self.head
        for name in self.tensors:
            yield from self.read(name)


@dataclass(frozen=True)
class ShardOnDisk:
    """A safetensors file: where each tensor's bytes are."""

    path: Path
    tensors: dict[str, Tensor]
    head: bytes

    def read(self, name: str, size: int = BLOCK) -> Iterator[bytes]:
        """See `ReadTensor`."""
        tensor = self.tensors[name]
        at, left = len(self.head) + tensor.data_offsets[0], tensor.size
        with self.path.open("rb") as file:
            file.seek(at)
            while left:
                block = file.read(min(size, left))
                if not block:
                    raise IncompatibleCheckpoint(f"{self.path}: became shorter while it was read: try again")
                yield block
                left -= len(block)


def open_shard(path: Path) -> ShardOnDisk:
    """The safetensors file at `path`. IncompatibleCheckpoint if it is damaged."""
    return ShardOnDisk(path, read_header(path), read_head(path))


def weight_file(path: Path) -> WeightFile:
    """The safetensors file at `path`, as it is."""
    shard = open_shard(path)
    return WeightFile(path.name, shard.head, shard.tensors, shard.read)


class Weights:
    """All tensors of a checkpoint's shards, by name."""

    def __init__(self, shards: list[Path]) -> None:
        self.shards = [open_shard(path) for path in shards]
        self.places = {name: shard for shard in self.shards for name in shard.tensors}

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def __getitem__(self, name: str) -> Tensor:
        return self.places[name].tensors[name]

    def read(self, name: str, size: int = BLOCK) -> Iterator[bytes]:
        """See `ReadTensor`."""
        return self.places[name].read(name, size)

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same bytes, of the same type and shape."""
        if (self[one].dtype, self[one].shape) != (self[other].dtype, self[other].shape):
            return False
        return all(a == b for a, b in zip(self.read(one), self.read(other), strict=True))


def check_finite(files: Iterable[WeightFile], where: object, progress: Progress = SILENT) -> list[str]:
    """Read all weights of `where`; the names of matrices that hold nothing but zeros.

    IncompatibleCheckpoint names the first tensor with a value that is no number.
    """
    zero: list[str] = []
    for file in files:
        for name, tensor in file.tensors.items():
            zeros = tensor.size > 0
            for block in with_progress(file.read(name), progress):
                if tensor.dtype in EXPONENT_BITS and not is_finite(block, tensor.dtype):
                    raise IncompatibleCheckpoint(
                        f"{where}: tensor {name} holds NaN or infinity: the training run diverged"
                    )
                zeros = zeros and not block.strip(b"\0")
            if zeros and len(tensor.shape) > 1:
                zero.append(name)
    return zero


def is_finite(block: bytes, dtype: str) -> bool:
    """Whether every value of a floating-point block is a number."""
    import numpy as np  # here, as commands that only list modules need not wait for NumPy

    bits, exponent = EXPONENT_BITS[dtype]
    mask = np.dtype(bits).type(exponent)
    return not ((np.frombuffer(block, bits) & mask) == mask).any()
