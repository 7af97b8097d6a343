"""What tiny models of each architecture look like: fields of their Transformers configurations."""

from __future__ import annotations

from typing import Any, Literal

from psserve.zoo.synthetic.tokenizer import VOCAB_SIZE

Architecture = Literal[
    "qwen3", "llama", "qwen2", "mistral", "granite", "smollm3", "phi3", "qwen3_moe", "mixtral", "olmoe", "gemma3_text"
]
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

SHORT = 128
"""Tokens for which a model was trained before its context was made longer."""
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 32.0,
    "original_max_position_embeddings": SHORT,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": SHORT,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.75,
    "original_max_position_embeddings": 512,
    "short_factor": [1.0, 1.02, 1.05, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 1.5, 2.2, 3.7, 6.1, 9.8],
}
"""As Phi-4-mini has it: three quarters of a head are rotated, by other angles beyond 512 tokens."""
MIXTURES: tuple[Architecture, ...] = ("qwen3_moe", "mixtral", "olmoe")
"""Those with experts, which PEFT does not adapt as linear layers."""
EXPERTS = {"num_hidden_layers": 2, "num_experts_per_tok": 2}
OWN: dict[Architecture, dict[str, Any]] = {
    "qwen3": {"head_dim": 32},
    "llama": {"head_dim": 32},
    "qwen2": {"num_hidden_layers": 2, "rope_parameters": YARN},
    "mistral": {"num_hidden_layers": 2, "head_dim": 32, "sliding_window": None, "rope_parameters": LLAMA3},
    "granite": {
        "num_hidden_layers": 2,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0},
        "attention_multiplier": 0.4,
        "embedding_multiplier": 12.0,
        "logits_scaling": 0.5,
        "residual_multiplier": 0.7,
    },
    "smollm3": {"num_hidden_layers": 2, "tie_word_embeddings": True, "no_rope_layer_interval": 2},
    "phi3": {
        "num_hidden_layers": 2,
        "original_max_position_embeddings": 512,
        "partial_rotary_factor": 0.75,
        "rope_parameters": LONGROPE,
    },
    "qwen3_moe": EXPERTS | {"head_dim": 32, "num_experts": 4, "moe_intermediate_size": 32, "norm_topk_prob": True},
    "mixtral": EXPERTS | {"num_local_experts": 4, "intermediate_size": 32},
    "gemma3_text": {
        "num_hidden_layers": 3,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "tie_word_embeddings": True,
        "sliding_window": 24,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "olmoe": EXPERTS | {"num_experts": 4, "num_key_value_heads": 4, "intermediate_size": 32},
}
"""Those that an architecture has instead or besides."""


def shape_of(architecture: Architecture, shape: dict[str, Any]) -> dict[str, Any]:
    """All fields of a tiny model, those in `shape` before all others."""
    return SHAPE | OWN[architecture] | shape
