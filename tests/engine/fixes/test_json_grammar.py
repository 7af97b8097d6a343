"""Answers under JSON schemas, drawn at random from SGLang's own backend: each is valid, or its schema is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.engine.fixes.json_grammar import ANY_JSON
from tests.engine.fixes.grammars import BLANK, accepts, allowed, backend_of, drawn
from tests.engine.release import only

DRAWS = 8
POINT = {
    "type": "object",
    "properties": {"x": {"type": "number"}, "y": {"type": "array", "items": {"type": "integer"}}},
    "required": ["x", "y"],
}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with backend_of(tmp_path_factory.mktemp("tokenizer")) as backend:
        yield backend


def of(backend: Any, schema: Any) -> Any:
    return backend.dispatch_json(json.dumps(schema))


def refusal(found: Any) -> str | None:
    return getattr(found, "error_message", None)


def breaks(schema: Any, text: str) -> list[str]:
    """The keywords that an answer breaks; `multipleOf` by exact decimals, which jsonschema does not count by."""
    value = json.loads(text, parse_float=Decimal)
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return [
        error.validator for error in jsonschema.Draft202012Validator(exact, format_checker=checker).iter_errors(value)
    ]


LEAF = {"type": "integer", "minimum": 1}
KEPT = {
    "range": {"type": "number", "minimum": 0.5, "maximum": 0.6},
    "open range": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
    "open range above a number": {"type": "number", "exclusiveMinimum": -2.5, "exclusiveMaximum": -2},
    "range of no type": {"minimum": 3, "maximum": 4.5},
    "integers": {"type": "integer", "minimum": 0.5, "exclusiveMaximum": 1000},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 10},
    "cents": {"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 5},
    "all of two": {"allOf": [{"properties": {"a": LEAF}, "required": ["a"]}, {"type": "object", "maxProperties": 2}]},
    "all of ranges": {"type": "integer", "allOf": [{"minimum": 3}, {"maximum": 5}]},
    "reference with siblings": {"$defs": {"a": {"type": "integer"}}, "$ref": "#/$defs/a", "minimum": 4},
    "reference by anchor": {"$defs": {"a": {"$anchor": "here", "type": "boolean"}}, "$ref": "#here"},
    "reference by id": {"$defs": {"a": {"$id": "https://a.example/b", "type": "null"}}, "$ref": "https://a.example/b"},
    "reference with escapes": {"$defs": {"a/b c": {"enum": [1, 2]}}, "$ref": "#/$defs/a~1b%20c"},
    "tree": {
        "type": "object",
        "properties": {"value": LEAF, "kids": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}},
        "required": ["value"],
    },
    "pattern and length": {"type": "string", "pattern": "^[ab]*$", "minLength": 2, "maxLength": 3},
    "pattern of signs": {"type": "string", "pattern": '^"\\d[^[\\]]\\s$'},
    "pattern of either": {"type": "string", "pattern": "^(ab|a)$"},
    "length of no type": {"minLength": 2, "maxLength": 4},
    "date": {"type": "string", "format": "date", "pattern": "-(02|11)-[123]."},
    "time of day": {"type": "string", "format": "date-time"},
    "address": {"type": "string", "format": "ipv4"},
    "format that is an annotation": {"type": "string", "format": "password", "maxLength": 2},
    "patterns of names": {"patternProperties": {"^a": LEAF}, "additionalProperties": False, "type": "object"},
    "pattern beside properties": {
        "type": "object",
        "properties": {"ab": {"minimum": 3}},
        "patternProperties": {"^a": {"type": "integer"}},
        "additionalProperties": False,
    },
    "names by pattern": {"type": "object", "propertyNames": {"pattern": "^a+$"}, "additionalProperties": LEAF},
    "names by enumeration": {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": LEAF},
    "any names": {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": LEAF},
    "a map of one or more": {"type": "object", "additionalProperties": LEAF, "minProperties": 1},
    "required alone": {"type": "object", "properties": {"a": LEAF}, "required": ["b"]},
    "tuple": {
        "type": "array",
        "prefixItems": [LEAF, {"type": "string", "maxLength": 2}],
        "items": False,
        "minItems": 2,
    },
    "closed by another word": {"type": "object", "properties": {"a": LEAF}, "unevaluatedProperties": False},
    "any order": {"type": "array", "items": LEAF, "uniqueItems": False, "maxItems": 3},
    "constant": {"const": {"a": [1, None, 'x\n"é\u0001']}},
    "enumeration with length": {"enum": ["a", "bb", 1], "minLength": 2},
    "one of two kinds": {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": kind}, "value": value}, "required": ["kind", "value"]}
            for kind, value in (("a", LEAF), ("b", {"type": "boolean"}))
        ]
    },
    "other switches": {"type": "integer", "multipleOf": 3, "x-guidance": {"lenient": True, "coerce_one_of": True}},
    "annotations": {"title": "t", "description": "d", "default": 1, "examples": [1], "deprecated": True} | LEAF,
}


@pytest.mark.parametrize("name", KEPT)
def test_an_answer_is_valid_under_its_schema(name: str, backend: Any) -> None:
    found = of(backend, KEPT[name])
    assert refusal(found) is None
    answers = [answer for seed in range(DRAWS) if (answer := drawn(backend, found.copy(), seed)) is not None]
    assert answers
    assert [(answer, broken) for answer in answers if (broken := breaks(KEPT[name], answer))] == []


NUMBERS = st.one_of(st.integers(-1000, 1000), st.decimals(-10, 10, places=3).map(float))
RANGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "number"])},
    optional={name: NUMBERS for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")}
    | {"multipleOf": st.sampled_from([1, 2, 7, 0.5, 0.01])},
)
STRINGS = st.fixed_dictionaries(
    {"type": st.just("string")},
    optional={
        "minLength": st.integers(0, 3),
        "maxLength": st.integers(2, 6),
        "pattern": st.sampled_from(["^[ab]+$", "^\\d{2}", "a|b", "^[^,[]*$"]),
        "format": st.sampled_from(["date", "ipv4", "password", "email"]),
    },
)
CONSTANTS = st.lists(
    st.one_of(st.none(), st.booleans(), st.integers(), NUMBERS, st.text(max_size=3)), min_size=1, max_size=4
)
LEAVES = st.one_of(RANGES, STRINGS, CONSTANTS.map(lambda values: {"enum": values}), st.just({"type": "boolean"}))
NAMES = st.sampled_from(["a", "b", 'c"'])


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.fixed_dictionaries(
        {"type": st.just("array"), "maxItems": st.integers(1, 3)},
        optional={
            "items": inner,
            "minItems": st.integers(0, 1),
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "uniqueItems": st.booleans(),
        },
    )
    objects = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, max_size=2)},
        optional={
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": st.one_of(st.booleans(), inner),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "^x-"]), inner, min_size=1, max_size=1),
            "minProperties": st.integers(0, 2),
            "maxProperties": st.integers(1, 3),
            "propertyNames": st.sampled_from([{}, {"enum": ["a", "d"]}, {"maxLength": 2}]),
        },
    )
    several = st.lists(inner, min_size=1, max_size=2)
    combined = st.sampled_from(["anyOf", "oneOf", "allOf"]).flatmap(
        lambda word: several.map(lambda parts: {word: parts})
    )
    beside = st.tuples(st.one_of(lists, objects, RANGES), combined).map(lambda pair: pair[0] | pair[1])
    return st.one_of(lists, objects, combined, beside)


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(schema=st.recursive(LEAVES, containers, max_leaves=5))
def test_whatever_the_schema_its_answers_are_valid_or_it_is_refused(schema: Any, backend: Any) -> None:
    found = of(backend, schema)
    if (message := refusal(found)) is not None:
        assert message
        return
    for seed in range(4):
        answer = drawn(backend, found.copy(), seed, 120)
        assert answer is None or not breaks(schema, answer), answer


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("range", marks=only(until="0.5.21")),
        pytest.param("multiple", marks=only(until="0.5.21")),
        "all of two",
        "reference by anchor",
        pytest.param("pattern and length", marks=only(until="0.5.21")),
        "length of no type",
        "required alone",
    ],
)
def test_stock_sglang_fails_the_same_test(name: str, backend: Any) -> None:
    stock = type(backend).dispatch_json.__wrapped__(backend, json.dumps(KEPT[name]))
    answers = [drawn(backend, stock.copy(), seed) for seed in range(3 * DRAWS)]
    assert any(not is_valid(KEPT[name], answer) for answer in answers if answer is not None)


def is_valid(schema: Any, answer: str) -> bool:
    try:
        return not breaks(schema, answer)
    except json.JSONDecodeError:
        return False


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems at #"),
        ({"properties": {"a": {"not": {}}}}, "not at #/properties/a"),
        ({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]}, "oneOf"),
        ({"patternProperties": {"a": {}, "b": False}}, "patternProperty regexes /a/ and /b/"),
        ({"pattern": "^(?=a)"}, "look-around"),
        (
            {"properties": {"b": {}, "a/b": {"items": {"pattern": "(?=a)"}}}},
            "not supported (at #/properties/a~1b/items)",
        ),
        ({"$ref": "https://a.example/b"}, "https://a.example/b"),
        ({"$ref": "#/$defs/a"}, "/$defs/a"),
        ({"type": "integer", "minimum": 5, "maximum": 2}, "minimum (5) is greater than maximum (2)"),
        ({"type": "any"}, "Invalid type: any"),
        ({"$ref": "#"}, "it allows no text"),
        ([], "must be an object"),
        ({"format": "date", "allOf": None}, "allOf must be an array"),
        ({"properties": {}, "required": [[]]}, "Expected string for 'required' item"),
        ({"propertyNames": {"$ref": "#/$defs/a"}, "$defs": [1]}, "propertyNames at #"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(schema: Any, says: str, backend: Any) -> None:
    message = refusal(of(backend, schema))
    assert message is not None
    assert says in message
    assert "coerce_one_of" not in message


@pytest.mark.parametrize("start", ["{", '{"x":', '{"x":1,', '{"x":1,"y":[', '{"x":1,"y":[]'])
def test_white_space_ends(start: str, backend: Any) -> None:
    """A model that would write nothing else comes to its answer after one blank."""
    found = of(backend, POINT)
    for token in backend.tokenizer.encode(start, add_special_tokens=False):
        found.accept_token(token)
    blank = {token for token, text in enumerate(backend.texts) if text and not text.strip(BLANK)}
    for token in blank.intersection(allowed(found)):
        assert backend.texts[token] == " "
        found.accept_token(token)
        assert not blank.intersection(allowed(found))


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":"), (" , ", " : ")])
def test_json_is_one_line_with_or_without_blanks(separators: tuple[str, str], backend: Any) -> None:
    answer = {"x": -1.5, "y": [1, 2]}
    assert accepts(backend, of(backend, POINT), json.dumps(answer, separators=separators))
    assert not accepts(backend, of(backend, POINT), json.dumps(answer, indent=0))


@pytest.mark.parametrize(
    ("form", "text", "is_allowed"),
    [
        ("date", "2028-02-29", True),
        ("date", "2000-02-29", True),
        ("date", "2030-02-29", False),
        ("date", "1900-02-29", False),
        ("date", "2030-04-31", False),
        ("date", "2030-12-31", True),
        ("date", "0000-01-01", False),
        ("time", "23:59:59.123456Z", True),
        ("time", "24:00:00Z", False),
        ("time", "23:59:60Z", False),
        ("date-time", "2028-02-29T00:00:00+14:00", True),
        ("date-time", "2028-02-30T00:00:00Z", False),
    ],
)
def test_dates_are_the_calendars(form: str, text: str, is_allowed: bool, backend: Any) -> None:
    found = of(backend, {"type": "string", "format": form})
    assert accepts(backend, found, json.dumps(text)) == is_allowed


def test_objects_that_list_their_properties_have_no_others(backend: Any) -> None:
    inner = {"type": "object", "properties": {"a": {"type": "object"}}}
    found = of(backend, inner)
    assert accepts(backend, found, '{"a": {"b": 1}}')
    assert not accepts(backend, found, '{"b": 1}')
    assert accepts(backend, of(backend, inner | {"additionalProperties": True}), '{"b": 1}')


def test_a_copy_starts_anew(backend: Any) -> None:
    first = of(backend, {"enum": [10, 20]})
    second = first.copy()
    first.accept_token(backend.tokenizer.encode("1", add_special_tokens=False)[0])
    assert accepts(backend, second, "20")
    assert second.grammar_stats.is_cache_hit
    assert second.accepted_tokens == []


def test_a_token_that_is_not_allowed_is_not_accepted(backend: Any) -> None:
    found = of(backend, {"type": "integer"})
    with pytest.raises(ValueError, match="not accepted"):
        found.accept_token(backend.tokenizer.encode("a", add_special_tokens=False)[0])
    with pytest.raises(ValueError, match="not accepted"):
        of(backend, {"type": "integer"}).accept_token(backend.tokenizer.eos_token_id)


def test_a_dead_end_allows_all_and_accepts_none_rather_than_the_end(backend: Any) -> None:
    """Otherwise half an answer would end as if it were whole."""
    found = of(backend, {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    with pytest.raises(ValueError, match="not accepted"):
        found.accept_token(backend.tokenizer.encode("a", add_special_tokens=False)[0])
    assert len(allowed(found)) > 500
    with pytest.raises(ValueError, match="not accepted"):
        found.accept_token(backend.tokenizer.eos_token_id)


def test_tokens_can_be_taken_back(backend: Any) -> None:
    found = of(backend, {"enum": [10, 25]})
    one, zero = (backend.tokenizer.encode(digit, add_special_tokens=False)[0] for digit in "10")
    for token in (one, zero, backend.tokenizer.eos_token_id):
        found.accept_token(token)
    found.rollback(3)
    assert not found.is_terminated()
    assert accepts(backend, of(backend, {"enum": [10, 25]}), "25")
    assert one in allowed(found)


def test_any_json_and_other_grammars_stay_with_xgrammar(backend: Any) -> None:
    assert accepts(backend, backend.dispatch_json(ANY_JSON), "[1]")
    assert accepts(backend, backend.dispatch_regex("a+b"), "aab")


def test_rows_of_both_libraries_share_a_mask(backend: Any) -> None:
    """A batch is masked by whichever grammar comes first."""
    import torch

    number, letters = of(backend, {"type": "integer"}), backend.dispatch_regex("[ab]")
    mask = letters.allocate_vocab_mask(backend.vocab_size, 2, "cpu")
    letters.fill_vocab_mask(mask, 0)
    number.fill_vocab_mask(mask, 1)
    logits = torch.zeros(2, backend.vocab_size)
    number.apply_vocab_mask(logits, mask)
    assert [backend.tokenizer.decode([int(token)]) for token in (logits[0] == 0).nonzero()] == ["a", "b"]
    assert (logits[1] == 0).nonzero().flatten().tolist() == allowed(of(backend, {"type": "integer"}))
