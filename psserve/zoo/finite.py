"""A search for NaN and infinity in weights: a diverged training run must not become a module."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.tensors import read_header

EXPONENT_BITS: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
"""Element type -> (unsigned type of its width, exponent's bits): NaN and infinity are the values with all of them set.
On bits, because NumPy has no bfloat16."""

BLOCK = 1 << 20


def check_finite(path: Path) -> None:
    """Read all of a safetensors file; IncompatibleCheckpoint names the first tensor with a value that is no number."""
    with path.open("rb") as file:
        start = 8 + struct.unpack("<Q", file.read(8))[0]
    for name, tensor in read_header(path).items():
        if tensor.dtype not in EXPONENT_BITS or tensor.data_offsets[0] == tensor.data_offsets[1]:
            continue
        bits, exponent = EXPONENT_BITS[tensor.dtype]
        count = (tensor.data_offsets[1] - tensor.data_offsets[0]) // bits().itemsize
        values = np.memmap(path, bits, "r", start + tensor.data_offsets[0], (count,))
        mask = bits(exponent)
        if any(((values[at : at + BLOCK] & mask) == mask).any() for at in range(0, count, BLOCK)):
            raise IncompatibleCheckpoint(f"{path}: tensor {name} holds NaN or infinity: the training run diverged")
