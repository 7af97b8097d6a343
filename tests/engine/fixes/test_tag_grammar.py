"""Calls of tools under a schema, drawn at random from SGLang's own backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from psserve.engine.fixes import tool_calls
from tests.engine.fixes.grammars import accepts, backend_of, drawn
from tests.engine.hooked import hooked
from tests.engine.release import only

ARGUMENTS = {
    "type": "object",
    "properties": {"x": {"type": "number", "minimum": 0.5, "maximum": 0.6}},
    "required": ["x"],
}
TOOLS = {"find": ARGUMENTS, "ping": {"type": "object", "properties": {}}}
GOOD, BAD = '{"x": 0.55}', '{"x": 0.7}'


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with backend_of(tmp_path_factory.mktemp("tokenizer")) as backend:
        yield backend


def tag(choice: str, kind: str = "qwen", tools: dict[str, Any] = TOOLS, parallel: bool = True) -> str:
    """The structural tag that SGLang sends to its scheduler for strict tools."""
    from sglang.srt.entrypoints.openai.protocol import Tool
    from sglang.srt.function_call.function_call_parser import FunctionCallParser

    offered = [
        Tool.model_validate({"function": {"name": name, "parameters": schema, "strict": True}})
        for name, schema in tools.items()
    ]
    name, constraint = FunctionCallParser(offered, kind).get_structure_constraint(choice, parallel_tool_calls=parallel)
    assert name == "structural_tag"
    return str(constraint.model_dump_json(by_alias=True))


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name":"{name}", "arguments":{arguments}}}\n</tool_call>'


def test_a_forced_call_is_a_call_with_valid_arguments(backend: Any) -> None:
    found = backend.dispatch_structural_tag(tag("required"))
    for seed in range(8):
        answer = drawn(backend, found.copy(), seed)
        if answer is not None:
            first = answer.removeprefix("<tool_call>\n").partition("\n</tool_call>")[0]
            made = json.loads(first)
            assert made["name"] in TOOLS
            assert made["name"] == "ping" or 0.5 <= made["arguments"]["x"] <= 0.6


@pytest.mark.parametrize(
    ("text", "forced", "free"),
    [
        (call("find", GOOD), True, True),
        (call("ping", "{}") + "\n" + call("find", GOOD), True, True),
        (call("ping", "{}") + call("find", GOOD), True, True),
        (call("find", BAD), False, False),
        (call("find", '{"x":  0.55}'), False, False),
        (call("fly", GOOD), False, False),
        (call("find", GOOD) + "\n" + call("find", BAD), False, False),
        ("", False, True),
        ("hello", False, True),
        ("so: " + call("find", GOOD) + " and " + call("ping", "{}") + "!", False, True),
        ("so: " + call("find", BAD), False, False),
        ("<|im_start|>so</tool_call>", False, True),
    ],
)
def test_calls_are_held_to_their_schemas_and_text_is_free(text: str, forced: bool, free: bool, backend: Any) -> None:
    """Special tokens that begin no call are text, as a reasoning model's are."""
    assert accepts(backend, backend.dispatch_structural_tag(tag("required")), text) == forced
    assert accepts(backend, backend.dispatch_structural_tag(tag("auto")), text) == free


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [
        ('[TOOL_CALLS] [{"name":"find", "arguments":{"x":0.5}}]', True),
        ('[TOOL_CALLS] [{"name":"find", "arguments":{"x":5}}]', False),
        ("hello", True),
    ],
)
def test_a_call_may_begin_with_plain_text(text: str, is_allowed: bool, backend: Any) -> None:
    found = backend.dispatch_structural_tag(tag("auto", "mistral"))
    assert accepts(backend, found, text) == is_allowed


def test_a_schema_that_is_not_kept_is_refused_by_name_and_place(backend: Any) -> None:
    unkept = {"find": {"type": "object", "properties": {"a": {"uniqueItems": True}}}}
    found = backend.dispatch_structural_tag(tag("required", tools=unkept))
    assert found.error_message.startswith("uniqueItems at #/properties/a ")


def test_schemas_of_all_tools_share_what_room_there_is(backend: Any) -> None:
    names = {"enum": [f"name {number}" for number in range(100)]}
    tools = {
        f"tool_{index}": {"propertyNames": names, "additionalProperties": {"enum": ["x" * 4000]}} for index in range(3)
    }
    assert not hasattr(
        backend.dispatch_structural_tag(tag("required", tools={"one": tools["tool_0"]})), "error_message"
    )
    found = backend.dispatch_structural_tag(tag("required", tools=tools))
    assert found.error_message.startswith("propertyNames at # has too many names")


@only(until="0.5.21")
def test_stock_sglang_takes_arguments_that_break_their_schema(backend: Any) -> None:
    sevens = {"type": "object", "properties": {"x": {"type": "integer", "multipleOf": 7}}, "required": ["x"]}
    asked, three = tag("required", tools={"find": sevens}), call("find", '{"x": 3}')
    stock = type(backend).dispatch_structural_tag.__wrapped__(backend, asked)
    assert accepts(backend, stock, three)
    assert not accepts(backend, backend.dispatch_structural_tag(asked), three)


@pytest.mark.parametrize(
    ("schema", "refused"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, None),
        ({"type": "object", "properties": {"a": {"multipleOf": 2}}}, "multipleOf at #/properties/a"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ({"anyOf": [{"required": ["a"]}], "properties": {}}, "anyOf at #"),
    ],
)
def test_tags_of_xgrammars_own_form_take_what_it_keeps(schema: Any, refused: str | None, backend: Any) -> None:
    form = {"type": "tag", "begin": "<a>", "content": {"type": "json_schema", "json_schema": schema}, "end": "</a>"}
    found = backend.dispatch_structural_tag(json.dumps({"type": "structural_tag", "format": form}))
    message = getattr(found, "error_message", None)
    assert message is None if refused is None else message.startswith(refused)


def test_a_forced_call_of_a_tool_without_a_schema_has_an_object(backend: Any) -> None:
    with hooked(tool_calls.hooks()):
        found = backend.dispatch_structural_tag(tag("required", tools={"ping": None}))
    assert accepts(backend, found, call("ping", '{"any": [1]}'))
    assert not accepts(backend, found, call("ping", "[1]"))


@pytest.mark.parametrize("kind", ["qwen", "hermes", "mistral", "llama3"])
@pytest.mark.parametrize("choice", ["required", "auto"])
def test_nothing_follows_on_one_call_that_is_to_be_alone(kind: str, choice: str, backend: Any) -> None:
    from sglang.srt.function_call.function_call_parser import FunctionCallParser

    info = FunctionCallParser([], kind).detector.structure_info()("find")
    one = f"{info.begin}{GOOD}{info.end}"
    with hooked(tool_calls.hooks()):
        many, alone = (
            backend.dispatch_structural_tag(tag(choice, kind, parallel=parallel)) for parallel in (True, False)
        )
    free = choice == "auto"
    for text, with_many, with_one in (
        (one, True, True),
        (one + one, True, False),
        (one + "so", free, False),
        ("so: " + one, free, free),
        ("so", free, free),
        (f"{info.begin}{BAD}{info.end}", False, False),
    ):
        assert (accepts(backend, many, text), accepts(backend, alone, text)) == (with_many, with_one), text


def test_of_a_models_own_tags_too_nothing_follows_on_the_first(backend: Any) -> None:
    tools = {"find": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
    one = "<tool_call>\n<function=find>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>"
    with hooked(tool_calls.hooks()):
        many, alone = (
            backend.dispatch_structural_tag(tag("required", "qwen3_coder", tools, parallel))
            for parallel in (True, False)
        )
    assert [accepts(backend, grammar, text) for grammar in (many, alone) for text in (one, one + one)] == [
        True, True, True, False,
    ]  # fmt: skip
