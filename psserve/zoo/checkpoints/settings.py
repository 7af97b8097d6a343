"""What a module is served with instead of the base's: end tokens, sampling defaults, output layer, quantisation.

Sampling defaults are those that SGLang takes of a single model (`--sampling-defaults model`). All else is the base's:
the rest of generation_config.json, configuration, tokenizer and chat template.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.checkpoint import Checkpoint
from psserve.zoo.disk.storage import read_json


@dataclass(frozen=True)
class Settings:
    """`files`: name -> content of each file that takes the place of the base's; `notes` say what was taken or not."""

    files: dict[str, bytes]
    notes: tuple[str, ...]


def module_settings(base: Checkpoint, module: Checkpoint) -> Settings:
    """What `module` is served with over `base`; no files where the base's say the same."""
    ends = end_tokens(base, module)
    own_ends = {} if ends == end_tokens(base, base) else {"eos_token_id": ends}
    defaults = sampling_defaults(module.generation_config)
    own_tie = {} if base.tied == module.tied else {"tie_word_embeddings": module.tied}
    config = read_json(base.path / "config.json")
    own_format = with_format(config, module) if base.quantisation != module.quantisation else config
    files: dict[str, bytes] = {}
    if own_ends or own_tie or own_format != config:
        files["config.json"] = encoded(own_format | own_ends | own_tie)
    if own_ends or defaults != sampling_defaults(base.generation_config):
        files["generation_config.json"] = encoded({"eos_token_id": ends} | defaults)
    return Settings(files, tuple(notes(base, module, own_ends, defaults)))


def with_format(config: dict[str, Any], module: Checkpoint) -> dict[str, Any]:
    """The base's configuration with the module's quantisation, or none, and its element type."""
    kept = {field: value for field, value in config.items() if field != "quantization_config"}
    own = {"quantization_config": module.quantisation.config} if module.quantisation else {}
    return kept | {"dtype" if "dtype" in config else "torch_dtype": module.dtype} | own


def end_tokens(base: Checkpoint, checkpoint: Checkpoint) -> list[int]:
    """The tokens that end an answer of `checkpoint`, served with the base's tokenizer, of which one always does.

    A checkpoint that names none has the base's.
    """
    own = {*checkpoint.eos_token_ids, checkpoint.tokenizer.end_token} - {None}
    ends = own or {*base.eos_token_ids}
    return sorted(token for token in ends | {base.tokenizer.end_token} if token is not None)


def notes(base: Checkpoint, module: Checkpoint, ends: dict[str, Any], defaults: dict[str, Any]) -> Iterator[str]:
    """What a user of the module should know."""
    if ends:
        tokens = ", ".join(map(str, ends["eos_token_id"]))
        yield f"its answers end with tokens of its own: {tokens}"
    if defaults != sampling_defaults(base.generation_config):
        shown = ", ".join(f"{field} {value}" for field, value in defaults.items()) or "none"
        yield f"its own sampling defaults are served: {shown}"
    own, theirs = (str(checkpoint.quantisation or "not quantised") for checkpoint in (module, base))
    if own != theirs:
        yield f"its weights are {own}, the base's {theirs}"
    if base.tied and not module.tied:
        yield "its output layer (lm_head) is served as it is, not tied to the embeddings as the base's"
    yield from (
        f"generation_config.json: {what}" for what in not_taken(base.generation_config, module.generation_config)
    )


def encoded(document: dict[str, Any]) -> bytes:
    """A file of configuration."""
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


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
