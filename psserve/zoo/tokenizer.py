"""A checkpoint's tokenizer and chat template, in a form that two checkpoints can be compared by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.jsonfile import read_json

PARTS = ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens")
"""The parts of tokenizer.json that decide which ids a text becomes, and back."""

SPECIALS = ("bos_token", "eos_token", "unk_token", "add_bos_token", "add_eos_token")
"""The fields of tokenizer_config.json that decide where a text begins and ends (padding does not matter)."""


@dataclass(frozen=True)
class Tokenizer:
    """`parts` of tokenizer.json, `specials` of tokenizer_config.json (None: no such file), and the template."""

    parts: dict[str, Any] | None
    specials: dict[str, Any] | None
    chat_template: str | None


def read_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a checkpoint directory; IncompatibleCheckpoint if a file of it is damaged."""
    return Tokenizer(read_parts(directory), read_specials(directory), read_chat_template(directory))


def read_parts(directory: Path) -> dict[str, Any] | None:
    """The deciding parts of tokenizer.json, as the installed tokenizers library writes them (releases differ)."""
    from tokenizers import Tokenizer as FastTokenizer  # type: ignore[import-untyped]

    path = directory / "tokenizer.json"
    if not path.exists():
        return None
    try:
        document = json.loads(FastTokenizer.from_file(str(path)).to_str())
    except Exception as error:  # the library raises bare Exception for every damaged file
        raise IncompatibleCheckpoint(f"{path}: cannot be read ({error}): copy it again") from error
    return {part: document.get(part) for part in PARTS}


def read_specials(directory: Path) -> dict[str, Any] | None:
    """The deciding fields of tokenizer_config.json; a token written as an object becomes its text."""
    path = directory / "tokenizer_config.json"
    if not path.exists():
        return None
    config = read_json(path)
    values = ((field, config.get(field)) for field in SPECIALS)
    return {field: value.get("content") if isinstance(value, dict) else value for field, value in values}


def read_chat_template(directory: Path) -> str | None:
    """The chat template, from the place that wins in Transformers: its own file, else tokenizer_config.json."""
    path = directory / "chat_template.jinja"
    if path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise IncompatibleCheckpoint(f"{path}: not UTF-8 ({error}): copy it again") from None
    template = read_json(directory / "tokenizer_config.json").get("chat_template")
    return template if template is None or isinstance(template, str) else json.dumps(template)
