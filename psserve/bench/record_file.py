"""The requests of a run as a file: a first line that says what ran, then one request a line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from psserve.bench.record import RequestRecord
from psserve.errors import BenchError

_Line = TypeVar("_Line")


@dataclass(frozen=True)
class RunHeader:
    """What ran, in the file's first line."""

    run: str
    """The run's name, as on its result line."""
    system: str
    started: float
    """Seconds since 1970: what the requests' times count from."""
    simulated: bool = False


def write_records(path: Path, header: RunHeader, records: Iterable[RequestRecord]) -> None:
    """Write the file, and its folder where there is none."""
    encode = msgspec.json.Encoder().encode
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(encode(header) + b"\n")
        for record in records:
            file.write(encode(record) + b"\n")


def read_records(path: Path) -> tuple[RunHeader, list[RequestRecord]]:
    """The file's contents. Raises BenchError for one that is no such file, naming file and line."""
    lines = path.read_bytes().splitlines()
    header = _read(lines[0] if lines else b"", RunHeader, path, 1)
    return header, [_read(line, RequestRecord, path, number) for number, line in enumerate(lines[1:], start=2)]


def _read(line: bytes, kind: type[_Line], path: Path, number: int) -> _Line:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.DecodeError as error:
        raise BenchError(f"{path}, line {number}: not the requests of a run: {error}") from None
