"""A safetensors file as what differs from the base: rebuilt bit for bit, and much smaller where training moved little.

    magic | header of the file | tensor | tensor | ...        in the order of the file's data

Header and tensors are sequences of blocks, each with its length, the length of what follows, and that: nothing if the
block is the base's; else zstandard of the differences to the base's block, or of the block itself where the base has
no such tensor. Differences are taken of the elements' bits, as integers: weights that moved by a few units in the last
place give small integers of either sign. Folded to unsigned ones (0, -1, 1, -2, ... to 0, 1, 2, 3, ...) and split into
planes (all low bytes, then all next bytes, ...) they are mostly zeros in all planes but the first, which is what
zstandard is good at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import repeat
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import zstandard

from psserve.zoo.checkpoints.safetensors import (
    DTYPE_BYTES,
    EMBEDDINGS,
    HEAD,
    Tensor,
    WeightFile,
    Weights,
    parse_header,
)

MAGIC = b"psserve delta 1\n"
LENGTHS = struct.Struct("<II")
LEVEL = 3
SUFFIX = ".delta"


class DamagedDelta(Exception):
    """Bytes that are no delta. Whoever knows the file's name makes a message of it."""


def encode_delta(file: WeightFile, base: Weights) -> Iterator[bytes]:
    """The delta of `file`, in pieces."""
    yield MAGIC
    yield from pack_block(file.head, None, 1)
    for name, tensor in file.tensors.items():
        width = DTYPE_BYTES[tensor.dtype]
        for block, reference in zip(file.read(name), references(name, tensor, base), strict=False):
            yield from pack_block(block, reference, width)


def decode(delta: BinaryIO, base: Weights) -> Iterator[bytes]:
    """The file of which `delta` is the delta, in pieces. DamagedDelta says what is wrong with it."""
    try:
        if delta.read(len(MAGIC)) != MAGIC:
            raise DamagedDelta("it does not begin as a delta of this psserve does")
        head = unpack(delta, None, 1)
        yield head
        for name, tensor in parse_header(head[8:]).items():
            left, width = tensor.size, DTYPE_BYTES[tensor.dtype]
            blocks = references(name, tensor, base)
            while left:
                block = unpack(delta, next(blocks, None), width)
                yield block
                left -= len(block)
    except (zstandard.ZstdError, struct.error, ValueError, KeyError, RecursionError, MemoryError) as error:
        raise DamagedDelta(str(error) or type(error).__name__) from None


def references(name: str, tensor: Tensor, base: Weights) -> Iterator[bytes | None]:
    """The base's blocks that those of a tensor are compared with, or None for each.

    An output layer that the base has not is tied to the embeddings: some tools store both.
    """
    known = EMBEDDINGS if name == HEAD and name not in base else name
    if known in base and (base[known].dtype, base[known].shape) == (tensor.dtype, tensor.shape):
        return base.read(known)
    return repeat(None)


def pack_block(block: bytes, reference: bytes | None, width: int) -> Iterator[bytes]:
    """A block's lengths and its compressed form."""
    if block == reference:
        yield LENGTHS.pack(len(block), 0)
        return
    values = elements(block, width)
    if reference is not None:
        values = fold(values - elements(reference, width))
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(planes(values).tobytes())
    yield LENGTHS.pack(len(block), len(packed))
    yield packed


def unpack(delta: BinaryIO, reference: bytes | None, width: int) -> bytes:
    """The inverse of `pack_block`, read from `delta`."""
    size, packed_size = LENGTHS.unpack(delta.read(LENGTHS.size))
    if packed_size == 0 and reference is not None:
        return reference
    plain = zstandard.ZstdDecompressor().decompress(delta.read(packed_size), max_output_size=size)
    values = np.ascontiguousarray(np.frombuffer(plain, np.uint8).reshape(width, -1).T).view(unsigned(width)).ravel()
    if reference is not None:
        values = unfold(values) + elements(reference, width)
    return values.tobytes()


def planes(values: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint8]:
    """First bytes of all elements, then second bytes, and so on."""
    return np.ascontiguousarray(values.view(np.uint8).reshape(-1, values.itemsize).T)


def fold(values: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.unsignedinteger]:
    """0, -1, 1, -2, ... (as two's complement) to 0, 1, 2, 3, ..."""
    one, sign = values.dtype.type(1), values.dtype.type(8 * values.itemsize - 1)
    folded: npt.NDArray[np.unsignedinteger] = (values << one) ^ (0 - (values >> sign))
    return folded


def unfold(values: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.unsignedinteger]:
    """The inverse of `fold`."""
    one = values.dtype.type(1)
    unfolded: npt.NDArray[np.unsignedinteger] = (values >> one) ^ (0 - (values & one))
    return unfolded


def elements(block: bytes, width: int) -> npt.NDArray[np.unsignedinteger]:
    """Bytes as unsigned integers of `width` bytes."""
    return np.frombuffer(block, unsigned(width))


def unsigned(width: int) -> np.dtype[np.unsignedinteger]:
    """The unsigned integer type of `width` bytes, little-endian as safetensors is."""
    return np.dtype(f"<u{width}")
