"""Reading training and evaluation data: JSON Lines or Parquet, whole, or an error naming file, line and field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from psserve.errors import DataError
from psserve.training.conversation import Conversation, Line

__all__ = ["Conversation", "read_conversations", "write_conversations"]


def read_conversations(paths: Sequence[Path]) -> list[Conversation]:
    """Every conversation of these files (.parquet, or else JSON Lines), in order.

    Raises DataError for the first thing that is wrong; nothing is returned from a half-read file.
    """
    conversations = [conversation for path in paths for conversation in read_file(path)]
    if not conversations:
        raise DataError(f"{', '.join(map(str, paths)) or 'no data file'}: no conversations: give at least one")
    return conversations


def read_file(path: Path) -> list[Conversation]:
    """The conversations of one file; DataError."""
    rows = parquet_rows(path) if path.suffix == ".parquet" else json_lines(path)
    return [parse_row(row, where) for where, row in rows]


def parse_row(row: object, where: str) -> Conversation:
    """One row as a conversation; DataError names its place and the first field that is wrong."""
    try:
        return Line.model_validate(row).conversation(where)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "line"
        raise DataError(f"{where}: {field}: {first['msg'].removeprefix('Value error, ')}") from None


def json_lines(path: Path) -> Iterator[tuple[str, object]]:
    """(place, value) for each line of a JSON Lines file. Blank lines are passed over."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}: give a JSON Lines or Parquet file") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}: line {number}", parse_json(line, f"{path}: line {number}")


def parse_json(line: bytes, where: str) -> object:
    """The JSON value of a line; DataError."""
    try:
        return orjson.loads(line.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}): save the file as UTF-8") from None
    except orjson.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None


def parquet_rows(path: Path) -> Iterator[tuple[str, object]]:
    """(place, row) for each row of a Parquet file. Fields that are null count as absent."""
    try:
        import pyarrow.parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs pyarrow: pip install 'psserve[train]'") from None
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        message = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as Parquet ({message})") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", without_nulls(row)


def without_nulls(value: Any) -> Any:
    """A Parquet value without its nulls: a column of objects gives each of them the keys of all."""
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [without_nulls(entry) for entry in value] if isinstance(value, list) else value


def write_conversations(path: Path, conversations: Iterable[Conversation]) -> None:
    """Write JSON Lines that `read_conversations` reads back as the same."""
    with path.open("wb") as file:
        for conversation in conversations:
            line: dict[str, Any] = {"messages": conversation.messages}
            if conversation.tools:
                line["tools"] = conversation.tools
            if conversation.tests:
                line["tests"] = conversation.tests
            file.write(orjson.dumps(line) + b"\n")
