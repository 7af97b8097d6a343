"""Reading data files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psserve.errors import DataError
from psserve.training.conversation import Conversation
from psserve.training.data import read_conversations, write_conversations

GOOD = {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_reads_all_files_in_order(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", GOOD, GOOD)
    second = write(tmp_path / "b.jsonl", {"prompt": "hi", "completion": "hello"})
    read = read_conversations([first, second])
    assert [conversation.messages[-1]["content"] for conversation in read] == ["4", "4", "hello"]
    assert read[1].where == f"{first}: line 2"


def test_prompt_and_completion_become_two_turns(tmp_path: Path) -> None:
    read = read_conversations([write(tmp_path / "a.jsonl", {"prompt": "hi", "completion": "hello"})])
    assert read[0].messages == ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"})


def test_arguments_of_a_call_may_be_text(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    line = {"messages": [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call]}]}
    read = read_conversations([write(tmp_path / "a.jsonl", line)])
    assert read[0].messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}


@pytest.mark.parametrize("role", ["system", "user", "tool"])
def test_what_the_assistant_is_told_may_be_empty(tmp_path: Path, role: str) -> None:
    line = {"messages": [*GOOD["messages"], {"role": role, "content": ""}, {"role": "assistant", "content": "done"}]}
    assert read_conversations([write(tmp_path / "a.jsonl", line)])[0].messages == tuple(line["messages"])


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\n" + json.dumps(GOOD).encode())
    assert [conversation.where for conversation in read_conversations([path])] == [
        f"{path}: line 1",
        f"{path}: line 3",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({}, "neither messages nor prompt and completion"),
        ({"prompt": "hi"}, "neither messages nor prompt and completion"),
        (GOOD | {"prompt": "hi"}, "both messages and prompt"),
        (GOOD | {"toolz": []}, "toolz"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "no assistant turn"),
        ({"messages": []}, "no assistant turn"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": []}]}, "messages.1"),
        ({"messages": [{"role": "tool"}, {"role": "assistant", "content": "hi"}]}, "messages.0: content is missing"),
        ({"messages": [{"role": "user", "content": None}, GOOD["messages"][1]]}, "messages.0: content is missing"),
        ({"messages": [{"role": "boss", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 4}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "hi", "tool_calls": [{"function": {}}]}]}, "tool_calls.0"),
        ({"messages": "hi"}, "messages: not JSON"),
        (GOOD | {"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ([GOOD], "line: "),
    ],
)
def test_a_wrong_line_is_named_with_its_field(tmp_path: Path, line: object, message: str) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, line)
    with pytest.raises(DataError) as error:
        read_conversations([path])
    assert f"{path}: line 2: " in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no conversations"),
        (b"\n\n", "no conversations"),
        (b'{"prompt": "caf\xe9", "completion": "x"}', "line 1: not UTF-8"),
        (b'{"prompt": "a"', "line 1: not JSON"),
        (b'{"prompt": "\\ud800", "completion": "x"}', "line 1: not JSON"),
        (b"[" * 100_000, "line 1: not JSON"),
        (b'{"prompt": NaN, "completion": "x"}', "line 1: not JSON"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_conversations([path])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_conversations([tmp_path / "none.jsonl"])


def test_parquet_reads_as_json_lines_do(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    call = {"function": {"name": "f", "arguments": '{"x": 1}'}}
    with_call = {"messages": [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call]}]}
    rows: list[dict[str, Any]] = [with_call | {"tools": '[{"function": {"name": "f"}}]'}, GOOD]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    lines = write(tmp_path / "a.jsonl", *rows)
    assert read_conversations([tmp_path / "a.parquet"]) == read_conversations([lines])


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 is not enough")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_conversations([path])


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
json_values = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts, st.lists, max_leaves=5)
calls = st.builds(
    lambda name, arguments: {"type": "function", "function": {"name": name, "arguments": arguments}},
    texts,
    st.dictionaries(texts, json_values, max_size=3),
)
users = st.builds(lambda text: {"role": "user", "content": text}, texts)
assistants = st.builds(
    lambda text, calls: {"role": "assistant", "content": text, "tool_calls": calls}, texts, st.lists(calls)
)
functions = st.builds(
    lambda name, parameters: {"type": "function", "function": {"name": name, "parameters": parameters}},
    texts,
    st.dictionaries(texts, json_values, max_size=3),
)
conversations = st.builds(
    lambda user, answer, tools, tests: Conversation((user, answer), tuple(tools), tests),
    users,
    assistants,
    st.lists(functions, max_size=2),
    st.just("") | texts,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.lists(conversations, min_size=1, max_size=4))
def test_what_is_written_is_read_back(tmp_path: Path, written: list[Conversation]) -> None:
    write_conversations(tmp_path / "a.jsonl", written)
    assert read_conversations([tmp_path / "a.jsonl"]) == written


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.binary() | st.recursive(st.none() | texts, lambda v: st.lists(v) | st.dictionaries(texts, v)).map(json.dumps))
def test_anything_else_is_a_data_error(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError):
        read_conversations([path])
