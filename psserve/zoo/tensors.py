"""The headers of safetensors files: which tensors a checkpoint holds, without reading their data."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.manifest import Record, describe

INDEX = "model.safetensors.index.json"
MAX_HEADER = 100 << 20
"""The limit that the safetensors library itself puts on a header, in bytes."""
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class Tensor(Record):
    """One entry of a safetensors header: element type, shape, and byte range within the file's data."""

    dtype: str
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    data_offsets: tuple[int, int]

    @property
    def size(self) -> int:
        """Bytes of its data."""
        return self.data_offsets[1] - self.data_offsets[0]


METADATA = TypeAdapter(dict[str, str])
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
        raise IncompatibleCheckpoint(f"{path}: bad safetensors header ({describe(error)}): copy it again") from None
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
