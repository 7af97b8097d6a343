"""What is refused of a schema, and where; what becomes of the rest."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, Field

from psserve.contracts.json_schema import NotKept, kept

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
