"""The shapes of real models, for zoos of random weights on a GPU, and a tiny one for dry runs without."""

from __future__ import annotations

from typing import Any

QWEN3 = {
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "rms_norm_eps": 1e-6,
    "dtype": "bfloat16",
}
SMALL = QWEN3 | {"num_hidden_layers": 28, "num_attention_heads": 16, "tie_word_embeddings": True}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": SMALL | {"hidden_size": 1_024, "intermediate_size": 3_072},
    "qwen3-1.7b": SMALL | {"hidden_size": 2_048, "intermediate_size": 6_144},
    "qwen3-8b": QWEN3
    | {"num_hidden_layers": 36, "num_attention_heads": 32, "hidden_size": 4_096, "intermediate_size": 12_288},
    # A vocabulary larger than the synthetic tokenizer's, as the real shapes have it.
    "tiny": {"vocab_size": 1_024, "tie_word_embeddings": True, "rope_parameters": QWEN3["rope_parameters"]},
}
