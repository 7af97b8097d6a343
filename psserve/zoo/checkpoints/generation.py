"""What a checkpoint says of how its answers end and are sampled, and what of it a server takes.

A server takes the tokens that end an answer, and the sampling defaults that SGLang takes of a single model
(`--sampling-defaults model`). The rest of generation_config.json is not taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
NOT_OF_ANSWERS = frozenset(
    {
        "_from_model_config",
        "bos_token_id",
        "cache_implementation",
        "eos_token_id",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "pad_token_id",
        "return_dict_in_generate",
        "transformers_version",
        "use_cache",
    }
)
"""Fields that change no answer, or (eos_token_id) are taken elsewhere."""


def check_generation(path: Path, config: dict[str, Any]) -> None:
    """Raise IncompatibleCheckpoint if a default in the file at `path` is none that a request may ask for."""
    for problem in sampling_problems(config):
        raise IncompatibleCheckpoint(f"{path}: {problem}: correct or remove it")


def sampling_problems(config: dict[str, Any]) -> Iterator[str]:
    """What is wrong with sampling defaults; null counts as absent."""
    for field, (wanted, _) in RANGES.items():
        if config.get(field) is not None and not is_allowed(field, config[field]):
            yield f"{field} is {config[field]!r}, and must be {wanted}"


def is_allowed(field: str, value: object) -> bool:
    """Whether a request may ask for this value of a field of `RANGES`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return RANGES[field][1](value)


def read_as_module(config: dict[str, Any]) -> dict[str, Any]:
    """A module's generation configuration in a server's words: to Transformers, a `top_k` of 0 is none at all."""
    return {field: value for field, value in config.items() if (field, value) != ("top_k", 0)}


def sampling_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """The defaults that are taken of a generation configuration: those that a request may ask for."""
    return {field: config[field] for field in RANGES if field in config and is_allowed(field, config[field])}


def not_taken(base: dict[str, Any], module: dict[str, Any]) -> Iterator[str]:
    """What of a module's generation configuration is not taken, in words; what the base says too is passed over."""
    yield from (f"{problem}: it is not taken" for problem in sampling_problems(module))
    fields = [
        field
        for field, value in module.items()
        if field not in NOT_OF_ANSWERS | RANGES.keys() and value not in (None, base.get(field))
    ]
    if fields:
        yield f"{', '.join(fields)}: not taken, as no server has such defaults: requests must ask for what they need"
