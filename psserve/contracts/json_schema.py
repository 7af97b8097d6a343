"""What of JSON Schema (Draft 2020-12) an answer is held to, and what is refused because nothing would keep it.

Decode servers compile schemas with llguidance, which keeps a keyword or refuses it. This says the same before a server
is asked, with the place in the schema, and puts into its words what it would refuse needlessly or keep wrongly.
A schema is only ever made narrower: what `kept` allows is valid under the schema that came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

Schema = dict[str, Any]

ONE = ("additionalProperties", "items", "propertyNames", "unevaluatedItems", "unevaluatedProperties")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
NAMED = ("properties", "patternProperties", "$defs", "definitions")
"""Keywords that hold a schema, a list of them, or some by name."""

NOT_KEPT = (
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "additionalItems"),
    *("propertyNames", "dependentRequired", "dependentSchemas", "dependencies"),
    *("unevaluatedItems", "unevaluatedProperties"),
    *("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"),
)
KEPT_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
FORMATS_NOT_KEPT = (
    *("idn-email", "idn-hostname", "iri", "iri-reference", "uri-reference", "uri-template"),
    *("json-pointer", "relative-json-pointer", "regex"),
)
"""The standard's other formats. Any other word is an annotation, as the standard has it."""

_YEAR = r"(\d{3}[1-9]|\d{2}[1-9]\d|\d[1-9]\d{2}|[1-9]\d{3})"
_LEAP_YEAR = r"(\d{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_LONG, _SHORT = r"(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])", r"(0[469]|11)-(0[1-9]|[12]\d|30)"
_DATE = rf"({_YEAR}-({_LONG}|{_SHORT}|02-(0[1-9]|1\d|2[0-8]))|{_LEAP_YEAR}-02-29)"
_HOURS = r"([01]\d|2[0-3]):[0-5]\d"
_TIME = rf"{_HOURS}:[0-5]\d(\.\d{{1,6}})?(Z|[+-]{_HOURS})"
CALENDAR = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}
"""Formats that llguidance keeps but for the calendar: it takes 2030-02-29. Python's own types read all of these."""

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
MAX_BOUND = 2**53
"""Beyond it, floating point skips integers."""
MAX_DIGITS = 15
"""Of a bound that is a fraction: floating point holds no more."""
MAX_CONSTANT = 2**63

MAX_WRITTEN = 2**20
"""Bytes, see `Room`."""

OBJECTS = ("properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties")
COMBINING = ("allOf", "anyOf", "oneOf", "$ref")


class Place(NamedTuple):
    """Where in a document a schema stands; as text, its JSON pointer as a fragment: `#/properties/a`.

    Names can be long and children many, so the pointer is made only where somebody reads it.
    """

    within: Place | None = None
    """None: the document itself."""
    name: str | int = "#"

    def __str__(self) -> str:
        names: list[str] = []
        place: Place | None = self
        while place is not None:
            names.append(str(place.name).replace("~", "~0").replace("/", "~1"))
            place = place.within
        return "/".join(reversed(names))


class NotKept(ValueError):
    """A schema has something that no answer could be held to."""

    def __init__(self, keyword: str, place: Place, why: str) -> None:
        super().__init__(f"{keyword} at {place} {why}")
        self.keyword = keyword
        self.pointer = str(place)
        """Of the schema that the keyword stands in."""


class Room:
    """What map keys that are enumerated may add to the schemas of one answer, in bytes.

    Each is written out with the schema of its value, and maps may be nested and refer to one enumeration: little text
    would become more than any server holds.
    """

    def __init__(self) -> None:
        self.left = MAX_WRITTEN

    def take(self, size: int) -> bool:
        """Whether there is room for `size` bytes, which are taken."""
        self.left -= size
        return self.left >= 0


def kept(schema: Schema, room: Room | None = None) -> Schema:
    """A schema that allows nothing but what `schema` does, in the decode servers' words. Raises NotKept.

    All schemas of one answer share `room`.
    """
    known = {name: value for name, value in schema.items() if name != "x-guidance"}  # llguidance's own switches
    is_closed = not any(_combines(node) for _, node in subschemas(known))
    narrower: Schema = _Keeper(known, is_closed, room or Room()).keep(known, Place())
    return narrower


def subschemas(schema: Schema) -> Iterator[tuple[Place, Schema]]:
    """Every schema in `schema` that is an object, itself first, in the document's order."""
    rest = [(Place(), schema)]
    while rest:
        place, node = rest.pop()
        yield place, node
        rest += [(where, child) for where, child in _children(node, place) if isinstance(child, dict)][::-1]


def _children(schema: Schema, place: Place) -> Iterator[tuple[Place, Any]]:
    for keyword, value in schema.items():
        if keyword in ONE:
            yield Place(place, keyword), value
        elif keyword in LISTS and isinstance(value, list):
            where = Place(place, keyword)
            yield from ((Place(where, index), child) for index, child in enumerate(value))
        elif keyword in NAMED and isinstance(value, dict):
            where = Place(place, keyword)
            yield from ((Place(where, name), child) for name, child in value.items())


def _combines(schema: Schema) -> bool:
    """Whether an object is described in more than one place, so that none of them knows all its properties."""
    if schema.keys().isdisjoint(COMBINING):
        return False
    parts = sum(len(schema["allOf"]) if name == "allOf" else 1 for name in COMBINING if _holds(schema, name))
    return parts > 1 or (parts == 1 and any(name in schema for name in OBJECTS))


def _holds(schema: Schema, keyword: str) -> bool:
    value = schema.get(keyword)
    return isinstance(value, list if keyword.endswith("Of") else str)


class _Keeper:
    """Rewrites one schema document."""

    def __init__(self, root: Schema, is_closed: bool, room: Room) -> None:
        self._root = root
        self._is_closed = is_closed
        self._room = room

    def keep(self, schema: Any, place: Place) -> Any:
        if not isinstance(schema, dict) or schema.keys().isdisjoint(_LOOKED_AT):
            return schema
        plain = _without_idle_words(self._with_named_properties(schema, place))
        _check(plain, place)
        if self._is_closed and _lists_properties(plain):
            plain["additionalProperties"] = False
        return {keyword: self._keep_in(keyword, value, Place(place, keyword)) for keyword, value in plain.items()}

    def _keep_in(self, keyword: str, value: Any, where: Place) -> Any:
        if keyword in ONE:
            return self.keep(value, where)
        if keyword in LISTS and isinstance(value, list):
            return [self.keep(child, Place(where, index)) for index, child in enumerate(value)]
        if keyword in NAMED and isinstance(value, dict):
            rename = _in_rust if keyword == "patternProperties" else str
            return {rename(name): self.keep(child, Place(where, name)) for name, child in value.items()}
        return _in_rust(value) if keyword == "pattern" and isinstance(value, str) else value

    def _with_named_properties(self, schema: Schema, place: Place) -> Schema:
        """Names of a map's keys as properties or patterns: enumerations and patterns are kept so."""
        names = self._target(schema.get("propertyNames"))
        if names is None or any(keyword in schema for keyword in ("properties", "patternProperties", *COMBINING)):
            return schema
        values = schema.get("additionalProperties", True)
        rest = {name: value for name, value in schema.items() if name not in ("propertyNames", "additionalProperties")}
        constraints = {name: value for name, value in names.items() if name in _OF_NAMES}
        allowed = constraints.get("enum", [constraints["const"]] if "const" in constraints else None)
        if constraints.keys() <= {"type"} and constraints.get("type", "string") == "string":
            return rest | {"additionalProperties": values}
        if isinstance(allowed, list) and constraints.keys() <= {"type", "enum", "const"}:
            properties = {name: values for name in allowed if isinstance(name, str)}
            if not self._room.take(len(json.dumps(list(properties))) + len(properties) * len(json.dumps(values))):
                raise NotKept("propertyNames", place, "has too many names to write each out with its schema")
            return rest | {"properties": properties, "additionalProperties": False}
        if isinstance(constraints.get("pattern"), str) and constraints.keys() <= {"type", "pattern"}:
            return rest | {"patternProperties": {constraints["pattern"]: values}, "additionalProperties": False}
        return schema

    def _target(self, schema: Any) -> Schema | None:
        """A schema, or the one of `$defs` that it refers to."""
        if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
            found = re.fullmatch(r"#/(\$defs|definitions)/([^/~%]+)", schema["$ref"])
            definitions = self._root.get(found[1]) if found else None
            schema = definitions.get(found[2]) if found and isinstance(definitions, dict) else None
        return {} if schema is True else schema if isinstance(schema, dict) else None


_LOOKED_AT = {*ONE, *LISTS, *NAMED, *NOT_KEPT, *BOUNDS, "pattern", "format", "const", "enum", "minProperties"}
_OF_NAMES = ("type", "enum", "const", "pattern", "minLength", "maxLength", "format", "$ref", *COMBINING, *NOT_KEPT)


def _lists_properties(schema: Schema) -> bool:
    """Whether an object's properties are listed, and nothing says that there are others."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or "additionalProperties" in schema or "patternProperties" in schema:
        return False
    required = schema.get("required", [])
    return isinstance(required, list) and all(isinstance(name, str) and name in properties for name in required)


def _without_idle_words(schema: Schema) -> Schema:
    """Without what asks for nothing, or asks for it in a way that another keyword says as well."""
    idle = {
        "uniqueItems": schema.get("uniqueItems") is False,
        "unevaluatedItems": schema.get("unevaluatedItems") is True,
        "unevaluatedProperties": schema.get("unevaluatedProperties") is True,
        "format": schema.get("format") not in KEPT_FORMATS + FORMATS_NOT_KEPT,
    }
    plain = {keyword: value for keyword, value in schema.items() if not idle.get(keyword)}
    if not any(keyword in plain for keyword in COMBINING):
        for keyword, other in (("unevaluatedItems", "items"), ("unevaluatedProperties", "additionalProperties")):
            if plain.get(keyword) is False:
                del plain[keyword]
                plain.setdefault(other, False)
    others = plain.get("allOf", [])
    if (pattern := CALENDAR.get(plain.get("format", ""))) is not None and isinstance(others, list):
        plain["allOf"] = [*others, {"pattern": pattern}]
    return _with_closed_ends(plain)


def _with_closed_ends(schema: Schema) -> Schema:
    """Ranges of fractions that exclude a whole number begin beside it: llguidance 1.9.1 takes 1 for `> 1, < 1.5`."""
    if schema.get("type") == "integer":
        return schema
    plain = dict(schema)
    for open_end, end, sign in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        value: Any = plain.get(open_end)
        if type(value) not in (int, float) or abs(value) >= MAX_BOUND or not float(value).is_integer():
            continue
        decimals = MAX_DIGITS - 1 - len(str(abs(int(value))))
        inside = round(value + sign * 10.0**-decimals, decimals)
        del plain[open_end]
        other: Any = plain.get(end)
        plain[end] = other if type(other) in (int, float) and sign * other > sign * inside else inside
    return plain


def _check(schema: Schema, place: Place) -> None:
    if unkept := schema.keys() & NOT_KEPT:
        keyword = next(keyword for keyword in schema if keyword in unkept)
        raise NotKept(keyword, place, "is not supported: no answer could be held to it")
    if schema.get("format") in FORMATS_NOT_KEPT:
        raise NotKept("format", place, f"is {schema['format']}, which is not supported: use pattern")
    if isinstance(schema.get("items"), list):
        raise NotKept("items", place, "is a list: use prefixItems")
    for keyword in BOUNDS:
        if _is_beyond(schema.get(keyword), MAX_BOUND):
            raise NotKept(keyword, place, f"is beyond {MAX_BOUND}, where numbers are no longer exact")
        if _digits(schema.get(keyword)) > MAX_DIGITS:
            raise NotKept(keyword, place, f"has more than {MAX_DIGITS} digits")
    for keyword in ("const", "enum"):
        if _is_beyond(schema.get(keyword), MAX_CONSTANT):
            raise NotKept(keyword, place, "has a number of more than 64 bits")
    least, required = schema.get("minProperties", 0), schema.get("required", [])
    if type(least) is int and isinstance(required, list) and least > len(required) + 1:
        raise NotKept("minProperties", place, "is more than one above the number of required properties")


def _digits(value: Any) -> int:
    """How many digits a fraction is written with, without zeros at either end; 0 for all else."""
    if not isinstance(value, float) or value.is_integer():
        return 0
    return len(Decimal(repr(value)).as_tuple().digits)


def _is_beyond(value: Any, limit: int) -> bool:
    """Whether there is a number in `value` that is not below `limit`, whatever its sign."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return any(_is_beyond(child, limit) for child in value)
    return type(value) in (int, float) and abs(value) >= limit


@lru_cache(maxsize=16)  # the calendar's come again and again
def _in_rust(pattern: str) -> str:
    """A regular expression of JavaScript's as Rust's, where sets nest: `[a[]` is `[a\\[]` there."""
    parts, in_set = [], False
    for part in re.findall(r"\\.|.", pattern, re.DOTALL):
        parts.append(f"\\{part}" if in_set and part in "[&~" else part)
        in_set = part == "[" or (in_set and part != "]")
    return "".join(parts)
