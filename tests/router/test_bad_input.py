"""Bodies that are refused, each with its status, field and code; nothing of them reaches a worker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from psserve.errors import RequestError
from psserve.router.answers.generation import parse_generation
from psserve.router.body.fields import REFUSED, check_body
from psserve.router.body.load import load_body
from psserve.router.workers.workers import WorkerTable
from tests.router.conftest import Fleet, make_config
from tests.router.fake_worker import Fabric, FakeWorker

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "add"}}
JSON_TYPE = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{", "invalid_json"),
        (b"", "invalid_json"),
        (b"[]", "invalid_type"),
        (b'"text"', "invalid_type"),
        (b"null", "invalid_type"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b'{"model": "math", "prompt": "p", "temperature": NaN}', "invalid_json"),
        (b'{"model": "math", "prompt": "p", "temperature": -Infinity}', "invalid_json"),
        (b'{"model": "math", "prompt": ' + b"[" * 65 + b"]" * 65 + b"}", "invalid_json"),
    ],
)
async def test_body_that_is_no_json_object(fleet: Fleet, raw: bytes, code: str) -> None:
    status, answer, _ = await fleet.post(COMPLETIONS, None, data=raw, headers=JSON_TYPE)
    assert (status, answer["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content-Type": "text/plain"}, "unsupported_media_type"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, "unsupported_encoding"),
    ],
)
async def test_body_of_another_type(fleet: Fleet, headers: dict[str, str], code: str) -> None:
    status, answer, _ = await fleet.post(COMPLETIONS, None, data=b"{}", headers=headers)
    assert (status, answer["error"]["code"]) == (415, code)


async def test_body_that_is_too_large(fleet: Fleet) -> None:
    raw = b'{"model": "math", "prompt": "' + b"x" * (9 * 2**20) + b'"}'
    status, answer, _ = await fleet.post(COMPLETIONS, None, data=raw, headers=JSON_TYPE)
    assert (status, answer["error"]["code"]) == (413, "request_too_large")


COMPLETION_CASES: list[tuple[dict[str, Any], int, str | None, str]] = [
    ({"model": None}, 400, "model", "missing_required_parameter"),
    ({"model": 5}, 400, "model", "invalid_type"),
    ({"model": ""}, 400, "model", "invalid_value"),
    ({"model": "x" * 10000}, 400, "model", "invalid_value"),
    ({"model": "a\nb"}, 400, "model", "invalid_value"),
    ({"model": "nobody"}, 404, "model", "model_not_found"),
    ({"model": "../math"}, 404, "model", "model_not_found"),
    ({"model": "math:adapter"}, 404, "model", "model_not_found"),
    ({"prompt": None}, 400, "prompt", "missing_required_parameter"),
    ({"prompt": ""}, 400, "prompt", "invalid_value"),
    ({"prompt": []}, 400, "prompt", "invalid_value"),
    ({"prompt": [[]]}, 400, "prompt", "invalid_value"),
    ({"prompt": ["a", ""]}, 400, "prompt", "invalid_value"),
    ({"prompt": 5}, 400, "prompt", "invalid_type"),
    ({"prompt": {"text": "a"}}, 400, "prompt", "invalid_type"),
    ({"prompt": ["a", [1]]}, 400, "prompt", "invalid_type"),
    ({"prompt": [[1], 2]}, 400, "prompt", "invalid_type"),
    ({"prompt": [1, "a"]}, 400, "prompt", "invalid_value"),
    ({"prompt": [-1]}, 400, "prompt", "invalid_value"),
    ({"prompt": [512]}, 400, "prompt", "invalid_value"),
    ({"prompt": [1.0]}, 400, "prompt", "invalid_value"),
    ({"prompt": [True]}, 400, "prompt", "invalid_value"),
    ({"prompt": [1, None]}, 400, "prompt", "invalid_value"),
    ({"prompt": [2**63]}, 400, "prompt", "invalid_value"),
    ({"prompt": [1] * 4096}, 400, "prompt", "context_length_exceeded"),
    ({"prompt": [1] * 2000, "max_tokens": 2097}, 400, "prompt", "context_length_exceeded"),
    ({"prompt": [1] * 2049}, 400, "prompt", "context_length_exceeded"),
    ({"prompt": ["a"] * 129}, 400, "n", "invalid_value"),
    ({"prompt": ["a", "b"], "n": 65}, 400, "n", "invalid_value"),
    ({"max_tokens": 0}, 400, "max_tokens", "invalid_value"),
    ({"max_tokens": -1}, 400, "max_tokens", "invalid_value"),
    ({"max_completion_tokens": 5}, 400, "max_completion_tokens", "unsupported_parameter"),
    ({"max_tokens": 1.5}, 400, "max_tokens", "invalid_value"),
    ({"max_tokens": "5"}, 400, "max_tokens", "invalid_value"),
    ({"max_tokens": 10**30}, 400, "max_tokens", "invalid_value"),
    ({"max_tokens": True}, 400, "max_tokens", "invalid_value"),
    ({"max_tokens": 4096}, 400, "max_tokens", "context_length_exceeded"),
    ({"max_tokens": 3, "min_tokens": 4}, 400, "min_tokens", "invalid_value"),
    ({"prompt_cache_key": 7}, 400, "prompt_cache_key", "invalid_type"),
    ({"routed_experts_start_len": "x"}, 400, "routed_experts_start_len", "invalid_value"),
    ({"return_token_ids": "x"}, 400, "return_token_ids", "invalid_value"),
    ({"temperature": -1}, 400, "temperature", "invalid_value"),
    ({"temperature": 3}, 400, "temperature", "invalid_value"),
    ({"temperature": "hot"}, 400, "temperature", "invalid_value"),
    ({"top_p": 0}, 400, "top_p", "invalid_value"),
    ({"top_p": 1.1}, 400, "top_p", "invalid_value"),
    ({"top_p": -1}, 400, "top_p", "invalid_value"),
    ({"top_k": 0}, 400, "top_k", "invalid_value"),
    ({"top_k": -2}, 400, "top_k", "invalid_value"),
    ({"min_p": 2}, 400, "min_p", "invalid_value"),
    ({"min_p": -0.1}, 400, "min_p", "invalid_value"),
    ({"frequency_penalty": -3}, 400, "frequency_penalty", "invalid_value"),
    ({"repetition_penalty": 2.1}, 400, "repetition_penalty", "invalid_value"),
    ({"presence_penalty": 3}, 400, "presence_penalty", "invalid_value"),
    ({"repetition_penalty": 0}, 400, "repetition_penalty", "invalid_value"),
    ({"repetition_penalty": 1e-40}, 400, "repetition_penalty", "invalid_value"),
    ({"n": 0}, 400, "n", "invalid_value"),
    ({"n": -1}, 400, "n", "invalid_value"),
    ({"n": 10**6}, 400, "n", "invalid_value"),
    ({"best_of": 4}, 400, "best_of", "unsupported_parameter"),
    ({"suffix": "end"}, 400, "suffix", "unsupported_parameter"),
    ({"echo": True, "logprobs": 0, "stream": True}, 400, "stream", "unsupported_parameter"),
    ({"logprobs": True}, 400, "logprobs", "invalid_value"),
    ({"logit_bias": {"x": 1}}, 400, "logit_bias", "invalid_value"),
    ({"logit_bias": {"512": 1}}, 400, "logit_bias", "invalid_value"),
    ({"logit_bias": {"1": 101}}, 400, "logit_bias", "invalid_value"),
    ({"logit_bias": {str(token): 1 for token in range(2_000)}}, 400, "logit_bias", "invalid_value"),
    ({"logit_bias": {"9" * 5000: 1}}, 400, "logit_bias", "invalid_value"),
    ({"stop": [""]}, 400, "stop", "invalid_value"),
    ({"stop": 5}, 400, "stop", "invalid_value"),
    ({"stop": ["x" * 1025]}, 400, "stop", "invalid_value"),
    ({"regex": "a", "min_tokens": 2}, 400, "min_tokens", "invalid_value"),
    ({"response_format": {"type": "json_object"}, "min_tokens": 2}, 400, "min_tokens", "invalid_value"),
    ({"stop_token_ids": [512]}, 400, "stop_token_ids", "invalid_value"),
    ({"stop_token_ids": 0}, 400, "stop_token_ids", "invalid_value"),
    ({"seed": 1.5}, 400, "seed", "invalid_value"),
    ({"seed": 2**63}, 400, "seed", "invalid_value"),
    ({"stream": "yes"}, 400, "stream", "invalid_value"),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options", "invalid_value"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, 400, "stream_options", "invalid_value"),
    ({"response_format": {"type": "xml"}}, 400, "response_format", "invalid_value"),
    ({"response_format": {"type": "json_schema"}}, 400, "response_format", "invalid_value"),
    ({"response_format": {"type": "json_object", "x": "y" * 70000}}, 400, "response_format", "invalid_value"),
    ({"regex": "a", "ebnf": "b"}, 400, "ebnf", "invalid_value"),
    ({"json_schema": "{"}, 400, "json_schema", "invalid_value"),
    ({"json_schema": "[]"}, 400, "json_schema", "invalid_value"),
    ({"json_schema": '{"properties": {"a": {"not": {}}}}'}, 400, "json_schema", "invalid_value"),
    (
        {"json_schema": '{"format": "date", "allOf": 5, "propertyNames": {"enum": 5}}'},
        400,
        "json_schema",
        "invalid_value",
    ),
    ({"json_schema": '{"items":' * 64 + "{}" + "}" * 64}, 400, "json_schema", "invalid_value"),
    ({"json_schema": '{"items":' * 2000 + "{}" + "}" * 2000}, 400, "json_schema", "invalid_value"),
]


@pytest.mark.parametrize(("fields", "status", "param", "code"), COMPLETION_CASES)
def test_refused_completion(fields: dict[str, Any], status: int, param: str | None, code: str) -> None:
    _check_refused("completions", {"model": "math", "prompt": "p"} | fields, status, param, code)


def tool_with(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f"} | fields}


def calling(calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": calls}


CUSTOM_CALL = {"id": "x", "type": "custom", "custom": {"name": "c", "input": "y"}}
PARAMETERS = "tools[0].function.parameters"
PROPERTIES = f"{PARAMETERS}.properties"
UNKEPT = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
NO_SCHEMA = {"propertyNames": {"$ref": "#/$defs/a"}, "$defs": {"a": {"pattern": []}}}
LARGE = {"properties": {"x" * 200_000: {}}}
UNKEPT_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": UNKEPT}}
NO_TEXT = ("messages[0].content[0]", "unsupported_content_type")
CHAT_CASES: list[tuple[dict[str, Any], str | None, str]] = [
    ({"messages": None}, "messages", "missing_required_parameter"),
    ({"messages": []}, "messages", "empty_array"),
    ({"messages": "hi"}, "messages", "invalid_type"),
    ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
    ({"messages": [USER, {"content": "hi"}]}, "messages[1].role", "invalid_value"),
    ({"messages": [{"role": "god", "content": "hi"}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": ["user"], "content": "hi"}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
    ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content[0]", "invalid_type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc"}}]}]},
        "messages[0].content[0]",
        "unsupported_content_type",
    ),
    ({"messages": [{"role": "tool", "content": "4"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", "invalid_value"),
    ({"max_completion_tokens": 0}, "max_completion_tokens", "invalid_value"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "invalid_value"),
    ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
    ({"tools": {}}, "tools", "invalid_value"),
    ({"tools": [TOOL] * 10000}, "tools", "invalid_value"),
    ({"tools": [{"type": "function"}]}, "tools", "invalid_value"),
    ({"tools": [tool_with(parameters=True)]}, "tools[0].function.parameters", "invalid_type"),
    ({"tools": [TOOL, tool_with(parameters="{}")]}, "tools[1].function.parameters", "invalid_type"),
    ({"tools": [tool_with(parameters=[])]}, "tools[0].function.parameters", "invalid_type"),
    ({"tools": [tool_with(parameters=0)]}, "tools[0].function.parameters", "invalid_type"),
    ({"tools": [tool_with(parameters={"$defs": []})]}, "tools[0].function.parameters.$defs", "invalid_type"),
    ({"tools": [tool_with(parameters={"properties": ["a"]})]}, PROPERTIES, "invalid_type"),
    ({"tools": [tool_with(parameters={"properties": {"a": "string"}})]}, f"{PROPERTIES}.a", "invalid_type"),
    ({"tools": [tool_with(description={})]}, "tools[0].function.description", "invalid_type"),
    ({"tools": [tool_with(strict="yes")]}, "tools[0].function.strict", "invalid_type"),
    ({"messages": [USER, calling("f")]}, "messages[1].tool_calls", "invalid_type"),
    ({"messages": [USER, calling([5])]}, "messages[1].tool_calls[0]", "invalid_type"),
    ({"messages": [USER, calling([CUSTOM_CALL])]}, "messages[1].tool_calls[0].type", "invalid_value"),
    ({"messages": [USER, calling([{"id": "x"}])]}, "messages[1].tool_calls[0].function", "invalid_type"),
    ({"messages": [USER, calling([{"function": {}}])]}, "messages[1].tool_calls[0].function.name", "invalid_type"),
    (
        {"messages": [USER, calling([{"function": {"name": "f", "arguments": 5}}])]},
        "messages[1].tool_calls[0].function.arguments",
        "invalid_type",
    ),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]},
        "tools[0].function.parameters.type",
        "invalid_value",
    ),
    ({"messages": [USER | {"name": 5}]}, "messages[0].name", "invalid_type"),
    (
        {"messages": [USER, {"role": "assistant", "reasoning_content": {}}]},
        "messages[1].reasoning_content",
        "invalid_type",
    ),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "invalid_value"),
    ({"tools": [TOOL], "tool_choice": "required", "min_tokens": 2}, "min_tokens", "invalid_value"),
    ({"max_completion_tokens": 4096}, "max_completion_tokens", "context_length_exceeded"),
    ({"task": "x"}, "task", "invalid_value"),
    ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", "invalid_value"),
    ({"response_format": UNKEPT_FORMAT}, "response_format", "invalid_value"),
    ({"tools": [tool_with(parameters=UNKEPT)], "tool_choice": "required"}, PARAMETERS, "invalid_value"),
    ({"tools": [tool_with(parameters=UNKEPT, strict=True)]}, PARAMETERS, "invalid_value"),
    ({"tools": [tool_with(parameters=NO_SCHEMA, strict=True)]}, PARAMETERS, "invalid_value"),
    (
        {"tools": [tool_with(parameters=LARGE), tool_with(parameters=LARGE)], "tool_choice": "required"},
        "tools[1].function.parameters",
        "invalid_value",
    ),
    ({"messages": [USER, calling([{"function": {"name": "f", "arguments": "[" * 100_001}}])]}, None, "invalid_json"),
    (
        {
            "tools": [tool_with(parameters=UNKEPT)],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
        PARAMETERS,
        "invalid_value",
    ),
    ({"chat_template": "{{ 1 }}"}, "chat_template", "unsupported_parameter"),
    ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs", "unsupported_parameter"),
    ({"input_ids": [1]}, "input_ids", "unsupported_parameter"),
    ({"json_schema": "{}"}, "json_schema", "unsupported_parameter"),
    ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
    ({"functions": [{"name": "add"}]}, "functions", "unsupported_parameter"),
    ({"store": True}, "store", "unsupported_parameter"),
    ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
    ({"reasoning_effort": True}, "reasoning_effort", "invalid_value"),
    ({"reasoning_effort": 1.5}, "reasoning_effort", "invalid_value"),
    ({"separate_reasoning": "yes"}, "separate_reasoning", "invalid_value"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, *NO_TEXT),
    ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:"}}]}]}, *NO_TEXT),
    ({"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "http://x"}}]}]}, *NO_TEXT),
]


@pytest.mark.parametrize(("fields", "param", "code"), CHAT_CASES)
def test_refused_chat(fields: dict[str, Any], param: str | None, code: str) -> None:
    _check_refused("chat", {"model": "math", "messages": [USER]} | fields, 400, param, code)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_field_says_why(name: str) -> None:
    with pytest.raises(RequestError, match="not supported: ") as caught:
        load_body(json.dumps({"model": "math", name: 0}).encode())
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [USER, {"role": "assistant", "tool_calls": []}, USER]},
        {"a_field_that_nobody_knows": 1},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"max_tokens": 5, "max_completion_tokens": 5},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [tool_with(parameters=None, description=None, strict=None)]},
        {"tools": [tool_with(parameters=UNKEPT)]},
        {"tools": [tool_with(parameters=LARGE)] * 2},
        {"tools": [tool_with(parameters=LARGE)], "tool_choice": "required"},
        {"tools": [tool_with(parameters=UNKEPT, strict=True)], "tool_choice": "none"},
        {"tools": [tool_with(parameters={"properties": {"a": True}, "$defs": {}})]},
        {"messages": [USER, calling([{"id": "x", "function": {"name": "f", "arguments": ""}}]), USER]},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"response_format": {"type": "text"}, "regex": "a"},
        {"response_format": {"type": "text"}, "tools": [TOOL], "tool_choice": "auto", "min_tokens": 2},
        {"regex": "a", "min_tokens": 0},
        {"top_k": -1, "temperature": 0, "logit_bias": {"511": -100}, "stop": "x", "n": 128},
    ],
)
def test_accepted_chat(fields: dict[str, Any]) -> None:
    assert _parse("chat", {"model": "math", "messages": [USER]} | fields).sequences


def test_what_all_choices_are_sent_together_is_bounded() -> None:
    """Each of them is sent what the server passes over as well."""
    idle, chat = "x" * 2**20, {"model": "math", "messages": [USER]}
    assert _parse("chat", chat | {"metadata": idle, "n": 60}).sequences
    assert _parse("chat", chat | {"metadata": idle * 7, "n": 8}).sequences
    _check_refused("chat", chat | {"metadata": idle, "n": 128}, 400, "n", "invalid_value")
    _check_refused("chat", chat | {"nobody_knows": idle, "n": 128}, 400, "n", "invalid_value")
    batch = {"model": "math", "prompt": [idle[: 2**15]] * 64}
    assert _parse("completions", batch | {"n": 2}).sequences
    _check_refused("completions", batch | {"suffix": "", "nobody_knows": idle}, 400, "n", "invalid_value")


def _parse(route: Any, body: Any) -> Any:
    # Not orjson: it writes no integers of more than 64 bits, and the parser must meet them.
    loaded = load_body(json.dumps(body).encode())
    check_body(route, loaded, CONFIG)
    return parse_generation(route, loaded, CONFIG, WorkerTable(CONFIG))


def _check_refused(route: str, body: Any, status: int, param: str | None, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        _parse(route, body)
    assert (caught.value.status, caught.value.param, caught.value.code) == (status, param, code)


CONFIG = make_config(
    FakeWorker("p", "prefill", Fabric(), port=1, bootstrap_port=2),
    FakeWorker("m", "decode", Fabric(), module="math", port=3),
    FakeWorker("c", "decode", Fabric(), module="code", port=4),
)
