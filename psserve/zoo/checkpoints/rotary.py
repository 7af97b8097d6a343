"""Rotary embeddings: which of them SGLang and Transformers compute alike, and how far each goes.

A token's keys may depend on nothing but its position, or modules could not share them. The kind "dynamic" turns all of
a longer prompt by other angles; "longrope" has two sets of angles, and takes the second once anything in the same batch
is longer than the model was trained for: below that length it is as good as any. Of "yarn" SGLang has angles for as
many positions as the model was made for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LONG = "longrope"
ONE_SIDED = (
    "attention_factor",
    "attn_factor",
    "extrapolation_factor",
    "long_mscale",
    "mscale",
    "mscale_all_dim",
    "short_mscale",
)
"""Parameters of yarn and longrope that only one of the two reads, or each in its own way."""


def rotary_kind(config: Mapping[str, Any]) -> str:
    """The kind of a configuration's rotary embeddings, "default" for plain ones."""
    return str(parameters(config).get("rope_type") or "default")


def parameters(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters of the rotary embeddings; none if there are none, or one set for each kind of layers."""
    found = config.get("rope_parameters")
    return found if isinstance(found, Mapping) else {}


def rotary_problems(kinds: tuple[str, ...], partial: bool, config: Mapping[str, Any]) -> Iterator[str]:
    """What of a configuration's rotary embeddings is not served as Transformers computes it, in words."""
    found, kind = parameters(config), rotary_kind(config)
    for layers, own in found.items():
        if isinstance(own, Mapping) and (kind_of := own.get("rope_type", "default")) != "default":
            yield f"rotary embeddings of the kind {kind_of!r} in layers of {layers} (rope_parameters)"
    if kind not in kinds:
        yield f"rotary embeddings of the kind {kind!r} (rope_parameters), where {', '.join(kinds)} can be served"
    if kind == LONG and trained_length(config) is None:
        yield "rotary embeddings of the kind 'longrope' without original_max_position_embeddings"
    share, outside = found.get("partial_rotary_factor", 1.0), config.get("partial_rotary_factor", 1.0)
    if share != 1.0 and not partial:
        yield f"partial_rotary_factor is {share}, and SGLang rotates whole heads in this architecture"
    elif share != outside:
        yield (
            f"partial_rotary_factor is {share} in rope_parameters and {outside} beside it, where SGLang reads it: "
            "write it there too"
        )
    for name in ONE_SIDED:
        if found.get(name) is not None and kind in ("yarn", LONG):
            yield f"{name} (rope_parameters), which SGLang and Transformers do not both read"


def context_limit(config: Mapping[str, Any]) -> int:
    """The longest context, in tokens, of which SGLang has all angles, and keys depend on their position alone."""
    longest: int = config["max_position_embeddings"]
    kind, trained = rotary_kind(config), trained_length(config)
    if kind == LONG and trained:
        return min(longest, trained)
    factor = parameters(config).get("factor")
    if kind == "yarn" and trained and isinstance(factor, int | float):
        return max(1, int(min(longest, trained * factor)))
    return longest


def trained_length(config: Mapping[str, Any]) -> int | None:
    """The context that a model was trained for before it was made longer; None if the configuration does not say."""
    name = "original_max_position_embeddings"
    found = parameters(config).get(name, config.get(name))
    return found if type(found) is int and found > 0 else None
