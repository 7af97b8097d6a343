"""Options made from the fields of a pydantic model: name, type, default and help of a setting are written once, there.

A field's description starts with a sentence that is the option's help. `Left out: ...` in it says what happens without
a value, where the default is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from psserve.contracts.tables import Metavar, NoFlag


def flags(model: type[BaseModel]) -> list[str]:
    """The fields that have an option: all but tables, and those that are marked."""
    return [
        name
        for name, field in model.model_fields.items()
        if _type_of(field) is not None and not any(isinstance(part, NoFlag) for part in field.metadata)
    ]


def model_options(model: type[BaseModel], only: Iterable[str] | None = None) -> Callable[[Any], Any]:
    """A decorator: an option for each of the model's settings, or `only` these; what is not given is passed as None."""
    names = flags(model) if only is None else list(only)

    def decorate(command: Any) -> Any:
        for name in reversed(names):
            command = field_option(model, name)(command)
        return command

    return decorate


def field_option(model: type[BaseModel], name: str, *, default: Any = None) -> Callable[[Any], Any]:
    """A decorator: the option of one setting. `default`: the command's own, where the model's is not meant."""
    field = model.model_fields[name]
    flag = "--" + name.replace("_", "-")
    kind = _type_of(field)
    if kind is click.BOOL:
        flag += f"/--no-{flag.removeprefix('--')}"
    metavar = "A,B" if kind is _names else _metavar(field)
    return click.option(flag, name, type=kind, metavar=metavar, default=default, help=_help(field, default))


def _type_of(field: FieldInfo) -> Any:
    """What click reads the field's value as; None for a table."""
    kind = _plain(field.annotation)
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if get_origin(kind) is tuple:
        return _names
    return {bool: click.BOOL, int: click.INT, float: click.FLOAT, str: click.STRING}.get(kind)


def _names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _plain(annotation: Any) -> Any:
    """The type without `| None` and without what Annotated adds."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not NoneType)
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _metavar(field: FieldInfo) -> str | None:
    parts = [part for kind in get_args(field.annotation) for part in getattr(kind, "__metadata__", ())]
    return next((part.text for part in (*field.metadata, *parts) if isinstance(part, Metavar)), None)


def _help(field: FieldInfo, default: Any) -> str:
    description, _, left_out = " ".join((field.description or "").split()).partition(" Left out: ")
    sentence = re.split(r"(?<=\.) ", description)[0].removesuffix(".")
    value = field.default if default is None else default
    said = _said(value) or left_out.removesuffix(".")
    return f"{sentence} [default: {said}]." if said else f"{sentence}."


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None or value == () else str(value)
