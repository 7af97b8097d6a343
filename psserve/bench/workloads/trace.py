"""Traces: AIPerf's `mooncake_trace` JSON Lines, the module of each request in `extra.model`, as sessions."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from psserve.bench.session import BLOCK_TOKENS, Call, Session, Step
from psserve.bench.workloads.workload import Order
from psserve.errors import TraceError

_TEXTS = ("messages", "text_input", "payload", "tools")
TokenCount = Annotated[int, Field(ge=1, le=10_000_000)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class TraceOptions:
    """How a trace is taken."""

    modules: tuple[str, ...] = ()
    """Called by requests whose line names no model, in the order of `order`."""
    order: Order = Order()  # noqa: RUF009 # it is frozen
    seed: int = 1
    scale: float = 1.0
    """All lengths, blocks too, are multiplied by this; times are not."""
    block_tokens: int = BLOCK_TOKENS


def read_trace(path: Path, options: TraceOptions) -> list[Session]:
    """The sessions of a trace in the order of their starts.

    Lines of one `session_id` are its steps: each follows `delay` ms after the answer of the one before (without a
    delay: after the difference of their timestamps). A line without a `session_id` is a session of its own. With
    `hash_ids`, `input_length` is the whole prompt, and blocks of one id are one text; without, it is what the line adds
    to its session's context. Sessions start at their first line's timestamp, counted from the first of all.

    Raises TraceError naming file, line and field.
    """
    rows = list(read_rows(path))
    if not rows:
        raise TraceError(f"{path} has no request")
    sessions: dict[str, list[TraceRow]] = {}
    for row in rows:
        sessions.setdefault(row.session_id or f"line-{row.line}", []).append(row)
    starts = _starts(path, sessions)
    made = [
        _Reading(path, options, number, name).session(lines, starts.get(name))
        for number, (name, lines) in enumerate(sessions.items())
    ]
    return sorted(made, key=lambda session: session.start_s or 0.0)


def modules_of(sessions: Iterable[Session]) -> tuple[str, ...]:
    """All modules that sessions call, by name."""
    return tuple(sorted({call.module for session in sessions for step in session.steps for call in step.calls}))


def _starts(path: Path, sessions: Mapping[str, Sequence[TraceRow]]) -> dict[str, float]:
    """Seconds after the first start; empty for a trace without timestamps."""
    firsts = {name: lines[0] for name, lines in sessions.items()}
    stamped = {name: row.timestamp for name, row in firsts.items() if row.timestamp is not None}
    if not stamped:
        return {}
    for name, row in firsts.items():
        if name not in stamped:
            raise TraceError(f"{path}, line {row.line}: timestamp: missing, and other sessions have one")
    zero = min(stamped.values())
    return {name: (timestamp - zero) / 1000 for name, timestamp in stamped.items()}


class _Reading:
    """Makes one session of its lines."""

    def __init__(self, path: Path, options: TraceOptions, number: int, name: str) -> None:
        self._path, self._options, self._name = path, options, name
        rng = random.Random(f"{options.seed}/trace/{number}")
        self._turns: Iterator[str] = options.order.turns(rng, options.modules, number) if options.modules else iter(())
        self._context = 0
        """Tokens of prompt and answer so far, unscaled."""

    def session(self, lines: Sequence[TraceRow], start_s: float | None) -> Session:
        steps = []
        for place, row in enumerate(lines):
            before = lines[place - 1] if place else None
            steps.append(self._scaled(self._step(row, before)))
        return Session(id=self._name, system="", system_tokens=0, steps=tuple(steps), start_s=start_s)

    def _step(self, row: TraceRow, before: TraceRow | None) -> Step:
        new_tokens = row.input_length - (self._context if row.hash_ids else 0)
        if new_tokens <= 0:
            raise self._error(
                row,
                f"input_length: {row.input_length} tokens are the whole prompt, as there are hash_ids,"
                f" and the session's context has {self._context} already",
            )
        blocks = row.hash_ids if before is None else ()  # later text follows an answer, and is nobody else's
        if blocks and len(blocks) * self._options.block_tokens < row.input_length:
            held = f"{len(blocks)} blocks of {self._options.block_tokens} tokens"
            raise self._error(row, f"hash_ids: {held} do not hold input_length {row.input_length}")
        self._context += new_tokens + row.output_length
        call = Call(self._module(row), row.output_length)
        return Step(new_tokens, (call,), self._delay_s(row, before), blocks, self._options.block_tokens)

    def _module(self, row: TraceRow) -> str:
        module = row.model or next(self._turns, None)
        if module is None:
            raise self._error(row, "extra.model: missing, and no --models are given for such lines")
        return module

    def _delay_s(self, row: TraceRow, before: TraceRow | None) -> float:
        if row.delay is not None or before is None:
            return (row.delay or 0.0) / 1000
        if row.timestamp is None or before.timestamp is None:
            return 0.0
        if row.timestamp < before.timestamp:
            raise self._error(row, f"timestamp: earlier than line {before.line} of the same session")
        return (row.timestamp - before.timestamp) / 1000

    def _scaled(self, step: Step) -> Step:
        def times(tokens: int) -> int:
            return max(1, round(tokens * self._options.scale))

        calls = tuple(Call(call.module, times(call.output_tokens)) for call in step.calls)
        return replace(step, new_tokens=times(step.new_tokens), calls=calls, block_tokens=times(step.block_tokens))

    def _error(self, row: TraceRow, what: str) -> TraceError:
        return TraceError(f"{self._path}, line {row.line}: {what}")


class Extra(BaseModel):
    """What AIPerf merges into a request's body; only the model is taken."""

    model_config = ConfigDict(extra="ignore", strict=True)
    model: Annotated[str, Field(min_length=1)] | None = None


class TraceRow(BaseModel):
    """A request. Fields that say nothing about when, where and how long are passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    line: int = 0
    input_length: TokenCount
    output_length: TokenCount
    timestamp: Milliseconds | None = None
    delay: Milliseconds | None = None
    hash_ids: tuple[int, ...] = ()
    session_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    extra: Extra = Extra()
    messages: Any = None
    text_input: Any = None
    payload: Any = None
    tools: Any = None

    @field_validator(*_TEXTS)
    @classmethod
    def refuse_texts(cls, value: object) -> object:
        """Texts cannot be sent: sessions are lengths."""
        if value is not None:
            raise ValueError("traces are replayed by length: give input_length instead")
        return value

    @property
    def model(self) -> str | None:
        return self.extra.model


def read_rows(path: Path) -> Iterator[TraceRow]:
    """The lines of a file but the empty ones. Raises TraceError for the first that is broken, OSError."""
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if text.strip():
                yield _row(path, number, text)


def _row(path: Path, number: int, text: bytes) -> TraceRow:
    try:
        row = TraceRow.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise TraceError(
            f"{path}, line {number}: {f'{field}: ' if field else ''}{first['msg'].removeprefix('Value error, ')}"
        ) from None
    return row.model_copy(update={"line": number})
