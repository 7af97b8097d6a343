"""The table of request fields: each is passed on to whom it says, or refused by a 400 that names it."""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from hypothesis import example, given, note
from hypothesis import strategies as st
from openai.types import completion_create_params as openai_completions
from openai.types.chat import completion_create_params as openai_chat

from psserve.errors import RequestError
from psserve.router.answers.generation import Generation, parse_generation
from psserve.router.body.fields import (
    FIELDS,
    REFUSED,
    TOKENIZE,
    TOKENIZE_FIELDS,
    Field,
    Route,
    check_body,
    check_refused,
    decode_fields,
)
from psserve.router.body.load import load_body
from psserve.router.workers.workers import WorkerTable
from tests.router.conftest import make_config
from tests.router.fake_worker import Fabric, FakeWorker

CONFIG = make_config(
    FakeWorker("p", "prefill", Fabric(), port=1, bootstrap_port=2),
    FakeWorker("m", "decode", Fabric(), module="math", port=3),
    FakeWorker("c", "decode", Fabric(), module="code", port=4),
)
TABLE = WorkerTable(CONFIG)
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"description": None, "name": "add", "parameters": None, "strict": False}}
OTHER = {"type": "function", "function": {"name": "sub"}}
MINIMAL: dict[Route, dict[str, Any]] = {
    "chat": {"model": "math", "messages": [USER]},
    "completions": {"model": "math", "prompt": "p"},
}
ROUTES: tuple[Route, ...] = get_args(Route)
ROWS = [(route, field) for route in ROUTES for field in FIELDS if route in field.on]
TAKEN = [
    (route, field)
    for route, field in ROWS
    if (route, field.name) not in {("chat", "json_schema"), ("completions", "max_completion_tokens")}
]
"""Rows that some value passes."""
SIMPLE = (True, 1, 0.5, "a", {})
"""Values of which nearly every field takes one."""
SAMPLES: dict[str, dict[str, Any]] = {
    "model": {"model": "math"},
    "messages": {"messages": [USER]},
    "prompt": {"prompt": [1, 2]},
    "stream_options": {"stream": True, "stream_options": {"continuous_usage_stats": True}},
    "json_schema": {"json_schema": "{}"},
    "response_format": {"response_format": {"type": "json_object"}},
    "modalities": {"modalities": ["text"]},
    "stop_token_ids": {"stop_token_ids": [5]},
    "top_logprobs": {"logprobs": True, "top_logprobs": 2},
    "tools": {"tools": [TOOL]},
    "tool_choice": {"tools": [TOOL], "tool_choice": "none"},
    "suffix": {"suffix": ""},
    "task": {"task": "query"},
}
"""Fields that need more."""
CHANGED = {"seed", "stream_options"}
"""Fields whose value in the decode leg is not the client's throughout."""
JSON = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def parse(route: Route, body: dict[str, Any]) -> Generation:
    # Not orjson: it writes no integers of more than 64 bits, and the parser must meet them.
    loaded = load_body(json.dumps(body).encode())
    check_body(route, loaded, CONFIG)
    return parse_generation(route, loaded, CONFIG, TABLE)


def parsed_or_refused(route: Route, body: dict[str, Any]) -> Generation | RequestError:
    try:
        return parse(route, body)
    except RequestError as error:
        return error


def check_legs(field: Field, generation: Generation, body: dict[str, Any]) -> None:
    for sequence in generation.sequences:
        legs = {"prefill": sequence.prefill, "decode": sequence.decode}
        assert (field.name in legs["decode"]) == ("decode" in field.to)
        if "decode" in field.to and field.name not in CHANGED:
            value = legs["decode"][field.name]
            given = orjson.loads(json.dumps(body[field.name]))  # an integer of more than 64 bits is read as a float
            assert value == given or value in given  # one of several prompts
        if "prefill" in field.to and field.to_prefill is None:
            assert legs["prefill"][field.name] == legs["decode"][field.name]
        fixed = {"model": CONFIG.base.name, "max_tokens": 1, "temperature": 0, "stream": False}
        if "prefill" not in field.to:
            assert legs["prefill"].get(field.name) == fixed.get(field.name)
        assert fixed.items() <= legs["prefill"].items()


@given(value=JSON)
@example(value=[-(2**63) - 1])
@example(value=-(2**63) - 1)
def test_any_value_is_passed_on_as_the_table_says_or_refused_by_name(value: Any) -> None:
    for route, field in ROWS:
        body = MINIMAL[route] | {field.name: value}
        outcome = parsed_or_refused(route, body)
        if isinstance(outcome, Generation):
            check_legs(field, outcome, body)
            continue
        note(f"{field.name} of {route}: {outcome.param} {outcome}")
        assert outcome.status == 400 or (field.name, outcome.status) == ("model", 404)
        assert outcome.param is not None
        # Of too many answers `n` is told, whichever of its factors is too large.
        assert outcome.param.startswith(field.name) or (field.name, outcome.param) == ("prompt", "n")


@pytest.mark.parametrize(("route", "field"), TAKEN, ids=lambda one: one if isinstance(one, str) else one.name)
def test_every_field_takes_something_and_goes_where_the_table_says(route: Route, field: Field) -> None:
    samples = [SAMPLES[field.name]] if field.name in SAMPLES else [{field.name: value} for value in SIMPLE]
    outcomes = [(parsed_or_refused(route, MINIMAL[route] | sample), sample) for sample in samples]
    taken = [(outcome, sample) for outcome, sample in outcomes if isinstance(outcome, Generation)]
    assert taken
    for generation, sample in taken:
        check_legs(field, generation, sample)
    assert {outcome.param for outcome, _ in outcomes if isinstance(outcome, RequestError)} <= {field.name}


@given(st.text(min_size=1, max_size=12), JSON)
def test_a_field_that_nobody_knows_goes_to_the_decode_leg_as_it_is(name: str, value: Any) -> None:
    known = {field.name for field in FIELDS} | REFUSED.keys()
    body = MINIMAL["chat"] | {f"x-{name}": value}
    assert f"x-{name}" not in known
    (sequence,) = parse("chat", body).sequences
    assert sequence.decode[f"x-{name}"] == value
    assert f"x-{name}" not in sequence.prefill


def test_the_base_gets_what_makes_up_the_prompt_and_nothing_else() -> None:
    to_base = {field.name for field in FIELDS if "prefill" in field.to}
    of_chats = {"messages", "tools", "tool_choice", "reasoning", "reasoning_effort", "chat_template_kwargs"}
    of_both = {"cache_salt", "extra_key", "priority"}
    assert to_base == of_chats | {"continue_final_message", "task", "prompt"} | of_both


def test_the_decode_server_gets_all_but_how_many_answers_there_are() -> None:
    kept = {field.name for field in FIELDS if "decode" not in field.to and field.on != TOKENIZE}
    assert kept == {"n", "best_of"}


def test_a_forced_tool_is_the_only_one_that_is_offered() -> None:
    choice = {"type": "function", "function": {"name": "add"}}
    (sequence,) = parse("chat", MINIMAL["chat"] | {"tools": [TOOL, OTHER], "tool_choice": choice}).sequences
    assert sequence.prefill["tools"] == [TOOL]
    assert "tool_choice" not in sequence.prefill
    assert sequence.decode["tools"] == [TOOL]
    assert sequence.decode["tool_choice"] == choice


def test_a_tool_choice_that_changes_no_prompt_stays_from_the_base() -> None:
    for choice, shown in (("none", "none"), ("auto", None), ("required", None)):
        (sequence,) = parse("chat", MINIMAL["chat"] | {"tools": [TOOL], "tool_choice": choice}).sequences
        assert sequence.prefill.get("tool_choice") == shown


@pytest.mark.parametrize("value", [None, False])
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_field_that_asks_for_nothing_is_no_fault(name: str, value: Any) -> None:
    check_refused({name: value})
    assert load_body(json.dumps({name: value, "model": "math"}).encode()) == {"model": "math"}


def test_no_field_has_two_rows_for_one_endpoint() -> None:
    rows = [(endpoint, field.name) for field in FIELDS for endpoint in field.on]
    assert len(rows) == len(set(rows))
    assert not {field.name for field in FIELDS} & REFUSED.keys()


@pytest.mark.parametrize("name", TOKENIZE_FIELDS)
@given(value=JSON)
def test_tokenize_takes_a_field_or_refuses_it_by_name(name: str, value: Any) -> None:
    refused = None
    try:
        check_body("tokenize", {name: value}, CONFIG)
    except RequestError as error:
        refused = error
    assert refused is None or (refused.status, (refused.param or "")[: len(name)]) == (400, name)


def test_what_the_router_does_itself_reaches_no_server() -> None:
    assert decode_fields("completions", {"n": 2, "best_of": 2, "prompt": "p"}) == {"prompt": "p"}


def test_every_field_of_openai_is_in_the_table() -> None:
    known = {field.name for field in FIELDS} | REFUSED.keys()
    assert openai_chat.CompletionCreateParamsBase.__annotations__.keys() <= known
    assert openai_completions.CompletionCreateParamsBase.__annotations__.keys() <= known


def test_every_field_of_sglang_is_in_the_table() -> None:
    """Read, not imported: it would bring PyTorch."""
    spec = find_spec("sglang")
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0]) / "srt" / "entrypoints" / "openai" / "protocol.py"
    classes = {one.name: one for one in ast.parse(source.read_text()).body if isinstance(one, ast.ClassDef)}
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        fields = {
            statement.target.id
            for statement in classes[name].body
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
            if not statement.target.id.startswith("_")  # which no client can set
        }
        assert fields <= {field.name for field in FIELDS} | REFUSED.keys()
