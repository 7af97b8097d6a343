"""Safetensors files as streams: a header, then the bytes of each tensor, a few megabytes at a time.

What is imported is read, checked, hashed and stored through these streams, so that memory stays small whatever the
model's size, and so that a file that only exists as a computation (a merged adapter) is handled like one on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.tensors import Tensor, read_head, read_header

BLOCK = 4 << 20
"""Bytes of a tensor that are in memory at a time; a multiple of every element's size."""


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
