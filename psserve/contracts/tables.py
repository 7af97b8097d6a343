"""Tables of settings that two readers check alike: fleet.toml, and the router's own configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True)
class Metavar:
    """What `--help` writes in place of a setting's value."""

    text: str


@dataclass(frozen=True)
class NoFlag:
    """Marks a setting of fleet.toml that no command has a flag for."""


Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1), Metavar("NAME")]
File = Annotated[str, Field(min_length=1), Metavar("FILE")]


class SettingsTable(BaseModel):
    """Unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
