"""Calls of tools, read by SGLang's own parsers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from psserve.engine.fixes import tool_calls
from psserve.engine.handover.targets import Span
from tests.engine.hooked import hooked
from tests.engine.release import INSTALLED

OFFERED = ("find", "ping")
CALL = '<tool_call>\n{"name": "find", "arguments": {"city": "Rome"}}\n</tool_call>'
UNKNOWN = '<tool_call>\n{"name": "fly", "arguments": {"city": "Rome"}}\n</tool_call>'
SCHEMA = {"properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(autouse=True, scope="module")
def with_hooks() -> Iterator[None]:
    with hooked(tool_calls.hooks()):
        yield


def parser(kind: str = "qwen", **function: Any) -> Any:
    from sglang.srt.entrypoints.openai.protocol import Tool
    from sglang.srt.function_call.function_call_parser import FunctionCallParser

    tools = [Tool.model_validate({"function": {"name": name, **function}}) for name in OFFERED]
    return FunctionCallParser(tools, kind)


def whole(text: str, kind: str = "qwen") -> tuple[str, list[tuple[str, str]]]:
    left, calls = parser(kind).parse_non_stream(text)
    return left, [(call.name, call.parameters) for call in calls]


def streamed(text: str, size: int, kind: str = "qwen") -> tuple[str, list[tuple[str, str]]]:
    """As SGLang's endpoint streams it, `size` characters at a time."""
    from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest
    from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat

    reader = parser(kind)
    texts, calls = "", []
    for start in range(0, len(text), size):
        piece, items = reader.parse_stream_chunk(text[start : start + size])
        texts += piece
        for item in items:
            if item.name:
                calls.append([item.name, ""])
            calls[-1][1] += item.parameters
    request = ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "x"}])
    content = {"meta_info": {"id": "x"}}
    newer = {"created": 7} if Span(since="0.5.22").holds(INSTALLED) else {}
    last = OpenAIServingChat._check_for_unstreamed_tool_args(None, reader, content, request, 0, **newer)
    for event in filter(None, (last or "").split("\n\n")):
        delta = json.loads(event.removeprefix("data: "))["choices"][0]["delta"]
        texts += delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            calls[-1][1] += call["function"]["arguments"]
    return texts, [(name, arguments) for name, arguments in calls]


FULL = ("find", '{"city": "Rome"}')


@pytest.mark.parametrize("kind", ["qwen", "hermes"])
@pytest.mark.parametrize(
    ("text", "left", "calls"),
    [
        ("Four.", "Four.", []),
        ("a < b", "a < b", []),
        ("a <tool", "a <tool", []),
        (CALL, "", [FULL]),
        (UNKNOWN, UNKNOWN, []),
        (f"I fly. {UNKNOWN}", f"I fly. {UNKNOWN}", []),
        (f"{CALL}\n{CALL}", "", [FULL, FULL]),
        ('<tool_call>\n{"na', '<tool_call>\n{"na', []),
        ("<tool_call>\nRome", "<tool_call>\nRome", []),
        ('<tool_call>\n{"name": "find"', "", [("find", "")]),
        ('<tool_call>\n{"name": "find", "arguments": {"city": "Ro', "", [("find", '{"city": "Ro"}')]),
        (f'{CALL}\n<tool_call>\n{{"name": "ping", "arguments": {{"n": 1', "", [FULL, ("ping", '{"n": 1}')]),
    ],
)
def test_what_is_written_is_text_or_a_call_streamed_and_not(kind: str, text: str, left: str, calls: Any) -> None:
    found = [whole(text, kind), *(streamed(text, size, kind) for size in (1, 3, 7))]
    assert [(read.strip(), called) for read, called in found] == [(left, calls)] * len(found)


@pytest.mark.parametrize("size", [1, 5])
def test_after_a_call_that_is_text_all_is_text(size: int) -> None:
    assert streamed(UNKNOWN + CALL, size) == (UNKNOWN + CALL, [])
    assert streamed(f"{CALL}\n{UNKNOWN}", size)[1] == [FULL]
    assert "fly" in streamed(f"{CALL}\n{UNKNOWN}", size)[0]


def test_text_after_a_call_is_kept() -> None:
    text, calls = whole(f"{CALL}\nDone.")
    assert calls == [FULL]
    assert text.strip() == "Done."
    assert streamed(f"{CALL}\nDone.", 3) == (text, calls)


@pytest.mark.parametrize("choice", ["required", "find"])
def test_arguments_of_a_forced_call_are_held_to_the_schema(choice: str) -> None:
    from sglang.srt.entrypoints.openai.protocol import ToolChoice

    forced = choice if choice == "required" else ToolChoice.model_validate({"function": {"name": choice}})
    kind, tag = parser(parameters=SCHEMA).get_structure_constraint(forced)
    assert kind == "structural_tag"
    assert [each.schema_ for each in tag.structures] == [{"type": "object"} | SCHEMA] * len(OFFERED)


def test_arguments_of_a_tool_without_a_schema_are_an_object() -> None:
    _, tag = parser().get_structure_constraint("required")
    assert [each.schema_ for each in tag.structures] == [{"type": "object"}] * len(OFFERED)


def test_what_the_model_may_call_of_itself_is_constrained_if_strict() -> None:
    assert parser(parameters=SCHEMA).get_structure_constraint("auto") is None
    _, tag = parser(strict=True).get_structure_constraint("auto")
    assert [each.schema_ for each in tag.structures] == [{"type": "object"}] * len(OFFERED)
