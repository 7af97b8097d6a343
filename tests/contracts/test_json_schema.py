"""What is refused of a schema, and where; what becomes of the rest."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, Field

from psserve.contracts.json_schema import (
    BOUNDS,
    LISTS,
    MAX_WRITTEN,
    NAMED,
    NOT_KEPT,
    ONE,
    NotKept,
    Place,
    Room,
    kept,
    subschemas,
)

INTEGER = {"type": "integer"}


@pytest.mark.parametrize(
    ("schema", "keyword", "pointer"),
    [
        ({"not": {}}, "not", "#"),
        ({"if": {}, "then": {}}, "if", "#"),
        ({"items": {"contains": {}}}, "contains", "#/items"),
        ({"anyOf": [{}, {"uniqueItems": True}]}, "uniqueItems", "#/anyOf/1"),
        ({"properties": {"a/b~": {"dependentRequired": {}}}}, "dependentRequired", "#/properties/a~1b~0"),
        ({"patternProperties": {"^a": {"dependentSchemas": {}}}}, "dependentSchemas", "#/patternProperties/^a"),
        ({"$defs": {"a": {"$dynamicRef": "#"}}}, "$dynamicRef", "#/$defs/a"),
        ({"propertyNames": {"maxLength": 3}}, "propertyNames", "#"),
        ({"propertyNames": {"enum": ["a"]}, "properties": {}}, "propertyNames", "#"),
        ({"anyOf": [{}], "unevaluatedProperties": False}, "unevaluatedProperties", "#"),
        ({"items": [{}]}, "items", "#"),
        ({"format": "regex"}, "format", "#"),
        ({"minimum": 2**53}, "minimum", "#"),
        ({"maximum": 0.1234567890123456}, "maximum", "#"),
        ({"const": {"a": [2**63]}}, "const", "#"),
        ({"enum": [1e30]}, "enum", "#"),
        ({"minProperties": 2}, "minProperties", "#"),
    ],
)
def test_what_no_answer_could_be_held_to_is_named_with_its_place(schema: Any, keyword: str, pointer: str) -> None:
    with pytest.raises(NotKept) as refused:
        kept(schema)
    assert (refused.value.keyword, refused.value.pointer) == (keyword, pointer)
    assert str(refused.value).startswith(f"{keyword} at {pointer} ")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"not": {"const": {"if": 1}}, "format": {"enum": ["regex"]}}, "additionalProperties": True},
        {"const": {"uniqueItems": True}},
        {"default": {"not": 1}, "examples": [{"contains": 2}], "x-order": {"if": 1}},
        {"minProperties": 2, "required": ["a"]},
        {"maximum": 9007199254740991, "minimum": -9007199254740991, **INTEGER},
    ],
)
def test_names_and_values_that_look_like_keywords_are_left_alone(schema: Any) -> None:
    assert kept(schema) == schema


@pytest.mark.parametrize(
    ("schema", "becomes"),
    [
        ({"uniqueItems": False}, {}),
        ({"format": "password"}, {}),
        ({"type": "integer", "format": "int32"}, INTEGER),
        ({"x-guidance": {"lenient": True}, **INTEGER}, INTEGER),
        ({"exclusiveMinimum": 0}, {"minimum": 1e-13}),
        ({"exclusiveMaximum": -12, "maximum": 3}, {"maximum": -12.000000000001}),
        ({"exclusiveMinimum": 0, "minimum": 5}, {"minimum": 5}),
        ({"exclusiveMinimum": 0, **INTEGER}, {"exclusiveMinimum": 0, **INTEGER}),
        ({"exclusiveMinimum": 0.5}, {"exclusiveMinimum": 0.5}),
        ({"pattern": "^[^[]&[\\]~]$"}, {"pattern": "^[^\\[]&[\\]\\~]$"}),
        ({"unevaluatedProperties": False}, {"additionalProperties": False}),
        ({"propertyNames": {"type": "string"}}, {"additionalProperties": True}),
        (
            {"propertyNames": {"$ref": "#/$defs/n"}, "additionalProperties": INTEGER, "$defs": {"n": {"const": "a"}}},
            {"properties": {"a": INTEGER}, "additionalProperties": False, "$defs": {"n": {"const": "a"}}},
        ),
        (
            {"propertyNames": {"pattern": "^a"}, "additionalProperties": INTEGER},
            {"patternProperties": {"^a": INTEGER}, "additionalProperties": False},
        ),
    ],
)
def test_the_rest_is_put_so_that_it_is_kept(schema: Any, becomes: Any) -> None:
    assert kept(schema) == becomes


@pytest.mark.parametrize(
    "schema",
    [
        {"format": "date", "allOf": None},
        {"propertyNames": {"enum": 5}},
        {"propertyNames": {"pattern": []}},
        {"propertyNames": {"pattern": 5}},
        {"propertyNames": {"$ref": "#/$defs/a"}, "$defs": [1]},
        {"properties": {"a": 1}, "required": [[]]},
    ],
)
def test_what_is_no_schema_is_refused_or_left_for_the_decode_server_to_refuse(schema: Any) -> None:
    with suppress(NotKept):
        assert kept(schema) == schema


KEYWORDS = st.sampled_from(
    [
        *(*ONE, *LISTS, *NAMED, *NOT_KEPT, *BOUNDS),
        *("pattern", "format", "const", "enum", "type", "required", "$ref", "minProperties", "x-guidance", "a"),
    ]
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["date", "string", "integer", "#/$defs/a", "#/definitions/a", "^[[]\\", "a"])
)
ANY_SCHEMA = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(KEYWORDS, ANY_SCHEMA, max_size=5))
@example({"exclusiveMinimum": 10**400})
def test_any_json_is_kept_or_refused_by_name(schema: dict[str, Any]) -> None:
    with suppress(NotKept):
        assert isinstance(kept(schema), dict)


def test_places_are_written_only_where_somebody_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that all children have in their pointers may be as long as the document."""
    written = []
    monkeypatch.setattr(Place, "__str__", lambda place: written.append(place.name) or "#")
    wide: dict[str, Any] = {"properties": {"a" * 1000: {"properties": {str(number): {} for number in range(100)}}}}
    kept(wide)
    assert len(list(subschemas(wide))) == 102
    assert not written
    with pytest.raises(NotKept):
        kept({"properties": {"a": {"not": {}}}})
    assert written


def map_of(names: int, value: Any) -> dict[str, Any]:
    return {"propertyNames": {"enum": [str(name) for name in range(names)]}, "additionalProperties": value}


def test_enumerated_names_are_written_out_as_far_as_there_is_room() -> None:
    nested: Any = True
    for _ in range(12):  # 20 names each: 20 ** 12 properties
        nested = map_of(20, nested)
    shared = {"properties": {str(one): {"propertyNames": {"$ref": "#/$defs/n"}} for one in range(1000)}}
    shared["$defs"] = {"n": map_of(1000, True)["propertyNames"]}
    for schema in (nested, shared, map_of(1000, {"enum": ["x" * 2000]})):
        with pytest.raises(NotKept, match=r"propertyNames at #.* has too many names") as refused:
            kept(schema)
        assert refused.value.keyword == "propertyNames"
    assert len(kept(map_of(1000, True))["properties"]) == 1000


def test_schemas_of_one_answer_share_what_room_there_is() -> None:
    half = map_of(1, {"enum": ["x" * (MAX_WRITTEN // 2)]})
    room = Room()
    kept(half, room)
    with pytest.raises(NotKept):
        kept(half, room)
    kept(half, Room())


def is_closed(schema: Any) -> bool:
    return kept(schema).get("additionalProperties", True) is False


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        ({"properties": {}}, True),
        ({"properties": {"a": {}}, "required": ["a"]}, True),
        ({}, False),
        ({"properties": {"a": {}}, "required": ["b"]}, False),
        ({"properties": {"a": {}}, "patternProperties": {"^b": {}}}, False),
        ({"properties": {"a": {}}, "additionalProperties": True}, False),
        ({"properties": {"a": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, False),
        ({"properties": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}}, "$defs": {"b": {}}}, True),
        ({"properties": {"a": {"allOf": [{}, {}]}}}, False),
    ],
)
def test_an_object_that_lists_its_properties_is_closed_unless_others_may_come_from_elsewhere(
    schema: Any, closed: bool
) -> None:
    assert is_closed(schema) == closed


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    weight: float = Field(gt=0, lt=90, multiple_of=0.5)


class Owner(BaseModel):
    """What people ask for with pydantic."""

    name: str = Field(min_length=1, max_length=20, pattern="^[A-Z][a-z]*$")
    born: AwareDatetime
    colour: Colour | None = None
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = Field(min_length=1, max_length=2)
    counts: dict[Colour, int]
    boss: Owner | None = None


def test_models_of_pydantic_are_kept() -> None:
    assert kept(Owner.model_json_schema())["$ref"] == "#/$defs/Owner"
