"""A checkpoint's tokenizer and chat template, in a form that two checkpoints can be compared by.

Transformers writes a tokenizer that it loaded in other words than it found it in. So what is compared is what decides
which ids a text becomes, and back, not how it is written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.disk.storage import read_json

PARTS = ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens")
"""The parts of tokenizer.json that decide which ids a text becomes, and back."""

TOKENS = ("bos_token", "eos_token", "pad_token")
SWITCHES = ("add_bos_token", "add_eos_token")
"""The fields of tokenizer_config.json that say where a text begins and ends, and what fills up a batch."""


@dataclass(frozen=True)
class Tokenizer:
    """`parts` of tokenizer.json, `specials` of tokenizer_config.json (None: no such file), and the template."""

    parts: dict[str, Any] | None
    specials: dict[str, Any] | None
    chat_template: str | None

    @property
    def end_token(self) -> int | None:
        """The id of `eos_token`; None if there is none, or it is not in the vocabulary."""
        text = (self.specials or {}).get("eos_token")
        parts = self.parts or {"added_tokens": [], "model": {}}
        added = {token["content"]: token["id"] for token in parts["added_tokens"]}
        vocabulary = parts["model"].get("vocab")
        found = added.get(text, vocabulary.get(text) if isinstance(vocabulary, dict) else None)
        return found if isinstance(found, int) else None


def read_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a checkpoint directory; IncompatibleCheckpoint if a file of it is damaged."""
    return Tokenizer(read_parts(directory), read_specials(directory), read_chat_template(directory))


def read_parts(directory: Path) -> dict[str, Any] | None:
    """The deciding parts of tokenizer.json, in the words of the installed tokenizers library (releases differ)."""
    from tokenizers import Tokenizer as FastTokenizer

    path = directory / "tokenizer.json"
    if not path.exists():
        return None
    try:
        document = json.loads(FastTokenizer.from_file(str(path)).to_str())
    except Exception as error:  # the library raises bare Exception for every damaged file
        raise IncompatibleCheckpoint(f"{path}: cannot be read ({error}): copy it again") from error
    parts = {part: document.get(part) for part in PARTS}
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        parts["model"][affix] = parts["model"].get(affix) or None
    parts["pre_tokenizer"] = without(parts["pre_tokenizer"], "trim_offsets")
    parts["decoder"] = without(parts["decoder"], "trim_offsets", "add_prefix_space", "use_regex")
    parts["post_processor"] = surroundings(parts["post_processor"])
    return parts


def without(value: Any, *settings: str) -> Any:
    """A part of tokenizer.json without settings that decide nothing there, at any depth."""
    if isinstance(value, list):
        return [without(item, *settings) for item in value]
    if isinstance(value, dict):
        return {key: without(item, *settings) for key, item in value.items() if key not in settings}
    return value


def surroundings(processor: dict[str, Any] | None) -> list[Any]:
    """What a post-processor makes of one text, which is "A" in the list: the ids of the tokens before and after it."""
    kind = processor["type"] if processor else "ByteLevel"
    if processor is None or kind == "ByteLevel":  # which changes offsets alone
        return ["A"]
    if kind == "TemplateProcessing":
        tokens = processor["special_tokens"]
        pieces = processor["single"]
        return ["A" if "Sequence" in piece else tokens[piece["SpecialToken"]["id"]]["ids"] for piece in pieces]
    if kind == "Sequence":
        made: list[Any] = ["A"]
        for inner in processor["processors"]:
            made = [item for outer in surroundings(inner) for item in (made if outer == "A" else [outer])]
        return made
    return [processor]


def read_specials(directory: Path) -> dict[str, Any] | None:
    """The deciding fields of tokenizer_config.json; a token that is written as an object becomes its text."""
    path = directory / "tokenizer_config.json"
    if not path.exists():
        return None
    config = read_json(path)
    tokens = ((field, config.get(field)) for field in TOKENS)
    texts = {field: value.get("content") if isinstance(value, dict) else value for field, value in tokens}
    return texts | {field: bool(config.get(field)) for field in SWITCHES}


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
