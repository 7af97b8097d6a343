"""What a module is served with instead of the base's: its end tokens, sampling defaults, an output layer of its own.

All else is the base's: configuration, tokenizer and chat template.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from psserve.zoo.checkpoints.checkpoint import Checkpoint
from psserve.zoo.checkpoints.generation import not_taken, sampling_defaults
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
    files: dict[str, bytes] = {}
    if own_ends or own_tie:
        files["config.json"] = encoded(read_json(base.path / "config.json") | own_ends | own_tie)
    if own_ends or defaults != sampling_defaults(base.generation_config):
        files["generation_config.json"] = encoded({"eos_token_id": ends} | defaults)
    return Settings(files, tuple(notes(base, module, own_ends, defaults)))


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
    if base.tied and not module.tied:
        yield "its output layer (lm_head) is served as it is, not tied to the embeddings as the base's"
    yield from (
        f"generation_config.json: {what}" for what in not_taken(base.generation_config, module.generation_config)
    )


def encoded(document: dict[str, Any]) -> bytes:
    """A file of configuration."""
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"
