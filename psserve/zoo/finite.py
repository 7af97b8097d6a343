"""A search for NaN and infinity in weights: a diverged training run must not become a module."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.progress import SILENT, Progress, reported
from psserve.zoo.weights import WeightFile

EXPONENT_BITS: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
"""Element type -> (unsigned type of its width, exponent's bits): NaN and infinity are the values with all of them set.
On bits, because NumPy has no bfloat16."""


def check_finite(files: Iterable[WeightFile], where: object, progress: Progress = SILENT) -> list[str]:
    """Read all weights of `where`; the names of matrices that hold nothing but zeros.

    IncompatibleCheckpoint names the first tensor with a value that is no number.
    """
    zero: list[str] = []
    for file in files:
        for name, tensor in file.tensors.items():
            zeros = tensor.size > 0
            for block in reported(file.read(name), progress):
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
    bits, exponent = EXPONENT_BITS[dtype]
    mask = bits(exponent)
    return not ((np.frombuffer(block, bits) & mask) == mask).any()
