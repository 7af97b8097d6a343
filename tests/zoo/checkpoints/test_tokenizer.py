"""A tokenizer that Transformers loaded and saved is the same tokenizer, however it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psserve import torchvision_ops
from psserve.zoo.checkpoints.tokenizer import read_tokenizer, surroundings
from psserve.zoo.synthetic.tokenizer import write_tokenizer

torchvision_ops.declare_missing()

from transformers import AutoTokenizer  # noqa: E402

Document = dict[str, Any]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def template(*pieces: str) -> Document:
    """A TemplateProcessing in which "A" is the text and all else a token of id 7."""
    return {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}} if piece == "A" else {"SpecialToken": {"id": piece, "type_id": 0}}
            for piece in pieces
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {piece: {"id": piece, "ids": [7], "tokens": [piece]} for piece in pieces if piece != "A"},
    }


def as_it_is(tokenizer: Document, config: Document) -> None:
    """The synthetic tokenizer, which has no post-processor."""


def as_qwen3(tokenizer: Document, config: Document) -> None:
    """As Qwen3's is on the Hub."""
    split = {"type": "Split", "pattern": {"Regex": QWEN_WORDS}, "behavior": "Isolated", "invert": False}
    tokenizer["normalizer"] = {"type": "NFC"}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]}
    tokenizer["post_processor"] = tokenizer["decoder"] = BYTE_LEVEL
    tokenizer["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    config |= {"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "unk_token": None}


def as_llama3(tokenizer: Document, config: Document) -> None:
    """As Llama 3's is on the Hub: the first token is put before every text."""
    first = tokenizer["added_tokens"][0]
    begin = template(first["content"], "A")
    begin["special_tokens"][first["content"]]["ids"] = [first["id"]]
    tokenizer["post_processor"] = {"type": "Sequence", "processors": [BYTE_LEVEL, begin]}
    config["bos_token"] = first["content"]


@pytest.mark.parametrize(("form", "model_type"), [(as_it_is, "qwen3"), (as_qwen3, "qwen3"), (as_llama3, "llama")])
def test_what_transformers_saves_is_equal_to_what_it_loaded(
    tmp_path: Path, form: Callable[[Document, Document], None], model_type: str
) -> None:
    write_tokenizer(tmp_path, 4096)
    paths = [tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"]
    documents = [json.loads(path.read_text()) for path in paths]
    form(*documents)
    for path, document in zip(paths, documents, strict=True):
        path.write_text(json.dumps(document))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    assert read_tokenizer(tmp_path / "saved") == read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("processor", "made"),
    [
        (None, ["A"]),
        (BYTE_LEVEL, ["A"]),
        (template("A"), ["A"]),
        (template("<s>", "A", "</s>"), [[7], "A", [7]]),
        (
            {"type": "Sequence", "processors": [template("<s>", "A"), BYTE_LEVEL, template("A", "</s>")]},
            [[7], "A", [7]],
        ),
        ({"type": "BertProcessing", "sep": ["x", 1]}, [{"type": "BertProcessing", "sep": ["x", 1]}]),
    ],
)
def test_post_processors_are_compared_by_what_they_add(processor: Document | None, made: list[object]) -> None:
    assert surroundings(processor) == made
