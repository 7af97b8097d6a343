"""What tiny models of each architecture look like: fields of their Transformers configurations."""

from __future__ import annotations

from typing import Any, Literal

from psserve.zoo.synthetic.tokenizer import VOCAB_SIZE

Architecture = Literal["qwen3", "llama"]
"""Model types of the architectures in psserve/zoo/checkpoints/architectures.py."""

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "dtype": "float32",
}
"""Fields that all have; `build_zoo(**shape)` overrides them, e.g. by those of a real model."""

OWN: dict[Architecture, dict[str, Any]] = {"qwen3": {"head_dim": 32}, "llama": {"head_dim": 32}}
"""Those that an architecture has instead or besides."""


def shape_of(architecture: Architecture, shape: dict[str, Any]) -> dict[str, Any]:
    """All fields of a tiny model, those in `shape` before all others."""
    return SHAPE | OWN[architecture] | shape
