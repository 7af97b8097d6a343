"""The sampling defaults of generation_config.json, which servers use where a request says nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from psserve.errors import IncompatibleCheckpoint

RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "temperature": ("0 or more", lambda value: value >= 0),
    "top_k": ("-1 (all tokens), or 1 or more", lambda value: (value == -1 or value >= 1) and value == int(value)),
    "top_p": ("above 0, at most 1", lambda value: 0 < value <= 1),
    "min_p": ("0 to 1", lambda value: 0 <= value <= 1),
    "repetition_penalty": ("0.01 to 2", lambda value: 0.01 <= value <= 2),
}
"""Field -> what a value must be. Outside, every request that leaves the field out would fail, or end the server."""


def check_generation(path: Path, config: dict[str, Any]) -> None:
    """Raise IncompatibleCheckpoint if a default in the file at `path` is none that a request may ask for."""
    for field, (wanted, allows) in RANGES.items():
        value = config.get(field)
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not allows(value):
            raise IncompatibleCheckpoint(f"{path}: {field} is {value!r}, and must be {wanted}: correct or remove it")


def check_end_tokens(directory: Path, vocab_size: int, tokens: tuple[int, ...]) -> None:
    """Raise IncompatibleCheckpoint if a token that ends an answer is none of the vocabulary's."""
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise IncompatibleCheckpoint(
                f"{directory}: eos_token_id {token}: the vocabulary has tokens 0 to {vocab_size - 1}: correct it"
            )
