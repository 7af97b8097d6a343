"""One line of a trace file, checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from psserve.errors import TraceError

Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
TEXTS = ("messages", "text_input", "payload", "tools")


class Extra(BaseModel):
    """What AIPerf merges into a request's body; only the model is taken."""

    model_config = ConfigDict(extra="ignore", strict=True)
    model: Annotated[str, Field(min_length=1)] | None = None


class Row(BaseModel):
    """A request. Fields that say nothing about when, where and how long are passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    line: int = 0
    input_length: Tokens
    output_length: Tokens
    timestamp: Milliseconds | None = None
    delay: Milliseconds | None = None
    hash_ids: tuple[int, ...] = ()
    session_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    extra: Extra = Extra()
    messages: Any = None
    text_input: Any = None
    payload: Any = None
    tools: Any = None

    @field_validator(*TEXTS)
    @classmethod
    def refuse_texts(cls, value: object) -> object:
        """Texts cannot be sent: sessions are lengths."""
        if value is not None:
            raise ValueError("traces are replayed by length: give input_length instead")
        return value

    @property
    def model(self) -> str | None:
        return self.extra.model


def read_rows(path: Path) -> Iterator[Row]:
    """The lines of a file but the empty ones. Raises TraceError for the first that is broken, OSError."""
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if text.strip():
                yield _row(path, number, text)


def _row(path: Path, number: int, text: bytes) -> Row:
    try:
        row = Row.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise TraceError(
            f"{path}, line {number}: {f'{field}: ' if field else ''}{first['msg'].removeprefix('Value error, ')}"
        ) from None
    return row.model_copy(update={"line": number})
