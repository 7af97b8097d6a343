"""What a check of `psserve doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Diagnosis:
    """The finding of one check."""

    name: str
    level: Level
    found: str
    advice: str = ""
    """What to do; empty when all is well, or when `found` is an error message that says it."""
