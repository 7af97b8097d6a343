"""Traces in AIPerf's mooncake_trace form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.bench.session import Call, Step
from psserve.bench.workloads.trace import TraceOptions, modules_of, read_trace
from psserve.bench.workloads.workload import Order
from psserve.errors import TraceError


def write(folder: Path, *rows: dict[str, Any] | str) -> Path:
    file = folder / "trace.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def row(**fields: Any) -> dict[str, Any]:
    return {"input_length": 100, "output_length": 10, "extra": {"model": "math"}} | fields


def test_lines_of_a_session_follow_each_other(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        row(session_id="a", timestamp=1000),
        row(session_id="b", timestamp=500),
        row(session_id="a", delay=250, input_length=30, extra={"model": "code", "top_k": 1}),
    )
    first, second = read_trace(file, TraceOptions())
    assert (first.id, first.start_s, second.id, second.start_s) == ("b", 0.0, "a", 0.5)
    assert second.steps == (Step(100, (Call("math", 10),)), Step(30, (Call("code", 10),), delay_s=0.25))
    assert modules_of([first, second]) == ("code", "math")


def test_with_hash_ids_the_length_is_of_the_whole_prompt(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        row(session_id="a", input_length=600, hash_ids=[7, 8]),
        row(session_id="a", input_length=1000, hash_ids=[7, 8], timestamp=3),
    )
    (session,) = read_trace(file, TraceOptions())
    assert [(step.new_tokens, step.blocks) for step in session.steps] == [(600, (7, 8)), (1000 - 610, ())]


def test_a_line_without_a_session_is_one_and_has_no_start_without_a_timestamp(tmp_path: Path) -> None:
    sessions = read_trace(write(tmp_path, row(), "", row()), TraceOptions())
    assert [(session.id, session.start_s) for session in sessions] == [("line-1", None), ("line-3", None)]


def test_without_a_delay_the_timestamps_tell_it(tmp_path: Path) -> None:
    file = write(tmp_path, row(session_id="a", timestamp=0), row(session_id="a", timestamp=1500))
    assert read_trace(file, TraceOptions())[0].steps[1].delay_s == 1.5


def test_lines_that_name_no_model_take_turns(tmp_path: Path) -> None:
    file = write(tmp_path, *[row(session_id="a", extra={}) for _ in range(3)])
    options = TraceOptions(modules=("x", "y"), order=Order.parse("y,x"))
    assert [step.calls[0].module for step in read_trace(file, options)[0].steps] == ["y", "x", "y"]


def test_scale_multiplies_lengths_and_blocks(tmp_path: Path) -> None:
    file = write(tmp_path, row(input_length=600, hash_ids=[1, 2]))
    (step,) = read_trace(file, TraceOptions(scale=0.5))[0].steps
    assert (step.new_tokens, step.calls[0].output_tokens, step.block_tokens) == (300, 5, 256)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("{", "Invalid JSON"),
        ("[]", "Input should be an object"),
        ({"output_length": 1}, "input_length: Field required"),
        (row(input_length=0), "input_length: "),
        (row(input_length=1.5), "input_length: "),
        (row(output_length="7"), "output_length: "),
        (row(timestamp=-1), "timestamp: "),
        (row(hash_ids=["x"]), "hash_ids.0: "),
        (row(extra={"model": 7}), "extra.model: "),
        (row(timestamp=9, extra={}), "extra.model: missing"),
        (row(messages=[]), "messages: traces are replayed by length"),
        (row(timestamp=9, input_length=600, hash_ids=[1]), "hash_ids: 1 blocks of 512 tokens do not hold"),
        (row(session_id="a", input_length=90, hash_ids=[1]), "input_length: 90 tokens are the whole prompt"),
        (row(session_id="a", timestamp=1), "timestamp: earlier than line 1"),
        (row(session_id="b"), "timestamp: missing"),
    ],
)
def test_a_broken_line_is_named_by_file_line_and_field(tmp_path: Path, broken: Any, said: str) -> None:
    file = write(tmp_path, row(session_id="a", timestamp=5), "", broken)
    with pytest.raises(TraceError, match=f"^{re.escape(str(file))}, line 3: {said}"):
        read_trace(file, TraceOptions())


def test_an_empty_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="has no request"):
        read_trace(write(tmp_path, ""), TraceOptions())


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_sessions_or_a_trace_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_bytes(data)
    with pytest.raises(TraceError):
        read_trace(file, TraceOptions())
