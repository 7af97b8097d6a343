"""The architectures that can be served: one table of what psserve must know of each.

Every row is a decoder whose whole prompt state is the KV of all its tokens, and a token's KV depends on nothing but
the tokens before it: that is what lets modules share the base's. A row is here once the suite it names passes on it:
real SGLang servers, float32, the tokens of Transformers and its log-probabilities within 1e-4 (docs/bases.md). To add
one: a row, its synthetic shape in psserve/zoo/synthetic/shapes.py, and `make test-bases`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psserve.zoo.checkpoints.layers import (
    Config,
    Shapes,
    gemma3_layer,
    llama_layer,
    mixtral_layer,
    olmoe_layer,
    phi3_layer,
    qwen2_layer,
    qwen3_layer,
    qwen3_moe_layer,
)

CHECKS = 1
"""Raised with each check that is added to those of served.py: zoos that were made before are held to it when they are
served."""

KV_FIELDS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "hidden_act",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "sliding_window",
    "layer_types",
    "attention_bias",
    "mlp_bias",
    "max_position_embeddings",
)
"""The fields of config.json that decide a KV cache's layout or content in any architecture (and head_dim, which some
derive)."""


@dataclass(frozen=True)
class Architecture:
    """One kind of decoder."""

    name: str
    """What config.json calls it, and SGLang's class."""
    model_type: str
    models: str
    """Models of this kind that people know, for messages and documents."""
    sglang: str
    """The module of SGLang that has the class, below sglang.srt.models."""
    layer: Callable[[Config, int], Shapes]
    """Configuration and width of a head -> the weights of a layer, named within it."""
    suite: str
    """The end-to-end tests that prove it."""
    kv_fields: tuple[str, ...] = ()
    """More fields of config.json that decide the KV cache's layout or content."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Field -> the only value that SGLang serves as Transformers computes it."""
    rotary: tuple[str, ...] = ("default", "linear", "llama3", "yarn")
    """The kinds of rotary embeddings that both compute alike."""
    partial_rotary: bool = False
    """Whether a part of each head may be left unrotated."""
    adapters: tuple[str, ...] = ()
    """Parts of a layer to which servers may add LoRA adapters while they compute; others are merged into the base's
    weights."""
    counts: tuple[str, ...] = ()
    """More fields of config.json that must be whole numbers from 1 on."""
    windows: bool = False
    """Whether some of its layers may see a window alone. SGLang keeps the KV of all tokens for them, too."""
    quantised: bool = True
    """Whether quantised checkpoints may be served, see quantisation.py."""


NO_BIAS = {"attention_bias": False, "mlp_bias": False}
BASES = "tests/e2e/test_bases.py"
DENSE = ("self_attn", "mlp")
ATTENTION = ("self_attn",)
ROWS = (
    Architecture(
        name="LlamaForCausalLM",
        model_type="llama",
        models="Llama 2, 3, 3.1, 3.2",
        sglang="llama",
        layer=llama_layer,
        suite="tests/e2e/test_exactness.py",
        fixed={"mlp_bias": False},
        adapters=DENSE,
    ),
    Architecture(
        name="Qwen3ForCausalLM",
        model_type="qwen3",
        models="Qwen3",
        sglang="qwen3",
        layer=qwen3_layer,
        suite="tests/e2e/test_exactness.py",
        adapters=DENSE,
    ),
    Architecture(
        name="Qwen2ForCausalLM",
        model_type="qwen2",
        models="Qwen2, Qwen2.5, QwQ",
        sglang="qwen2",
        layer=qwen2_layer,
        suite=BASES,
        adapters=DENSE,
        kv_fields=("dual_chunk_attention_config",),
        fixed={"dual_chunk_attention_config": None},
    ),
    Architecture(
        name="MistralForCausalLM",
        model_type="mistral",
        models="Mistral 7B v0.2 and v0.3, Mistral Nemo, Mistral Small 24B",
        sglang="mistral",
        layer=llama_layer,
        suite=BASES,
        adapters=DENSE,
        fixed=NO_BIAS,
    ),
    Architecture(
        name="GraniteForCausalLM",
        model_type="granite",
        models="Granite 3",
        sglang="granite",
        layer=llama_layer,
        suite=BASES,
        adapters=DENSE,
        kv_fields=("attention_multiplier", "embedding_multiplier", "logits_scaling", "residual_multiplier"),
        fixed=NO_BIAS,
    ),
    Architecture(
        name="SmolLM3ForCausalLM",
        model_type="smollm3",
        models="SmolLM3",
        sglang="transformers",
        layer=llama_layer,
        suite=BASES,
        kv_fields=("no_rope_layers",),
        quantised=False,
    ),
    Architecture(
        name="Phi3ForCausalLM",
        model_type="phi3",
        models="Phi-4, Phi-4-mini, Phi-3-medium",
        sglang="llama",
        layer=phi3_layer,
        suite=BASES,
        adapters=DENSE,
        kv_fields=("original_max_position_embeddings",),
        fixed=NO_BIAS,
        rotary=("default", "longrope"),
        partial_rotary=True,
        quantised=False,
    ),
    Architecture(
        name="Qwen3MoeForCausalLM",
        model_type="qwen3_moe",
        models="Qwen3-30B-A3B, Qwen3-235B-A22B",
        sglang="qwen3_moe",
        layer=qwen3_moe_layer,
        suite=BASES,
        adapters=ATTENTION,
        kv_fields=(
            "decoder_sparse_step",
            "mlp_only_layers",
            "moe_intermediate_size",
            "norm_topk_prob",
            "num_experts_per_tok",
        ),
        fixed={"decoder_sparse_step": 1, "mlp_only_layers": []},
        counts=("decoder_sparse_step", "moe_intermediate_size", "num_experts_per_tok"),
        quantised=False,
    ),
    Architecture(
        name="MixtralForCausalLM",
        model_type="mixtral",
        models="Mixtral 8x7B, 8x22B",
        sglang="mixtral",
        layer=mixtral_layer,
        suite=BASES,
        adapters=ATTENTION,
        kv_fields=("num_experts_per_tok",),
        counts=("num_experts_per_tok",),
        quantised=False,
    ),
    Architecture(
        name="OlmoeForCausalLM",
        model_type="olmoe",
        models="OLMoE-1B-7B",
        sglang="olmoe",
        layer=olmoe_layer,
        suite=BASES,
        adapters=ATTENTION,
        kv_fields=("clip_qkv", "norm_topk_prob", "num_experts_per_tok"),
        fixed={"attention_bias": False, "clip_qkv": None, "norm_topk_prob": False, "rms_norm_eps": 1e-5},
        counts=("num_experts_per_tok",),
        quantised=False,
    ),
    Architecture(
        name="Gemma3ForCausalLM",
        model_type="gemma3_text",
        models="Gemma 3 270M and 1B",
        sglang="gemma3_causal",
        layer=gemma3_layer,
        suite=BASES,
        adapters=DENSE,
        kv_fields=(
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "hidden_activation",
            "query_pre_attn_scalar",
            "use_bidirectional_attention",
        ),
        fixed={
            "attention_bias": False,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "hidden_activation": "gelu_pytorch_tanh",
            "use_bidirectional_attention": False,
        },
        rotary=("default",),
        windows=True,
        quantised=False,
    ),
)
TABLE = {row.name: row for row in ROWS}
"""Name -> row, in the order of documents."""


def kv_fields(row: Architecture) -> tuple[str, ...]:
    """All fields of config.json that decide the KV cache."""
    return (*KV_FIELDS, *row.kv_fields)


def expected_tensors(name: str, config: Config, head_dim: int) -> Shapes:
    """Name -> shape of every weight; the output layer only if it is not tied to the embeddings."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (vocabulary, hidden)
    layer = TABLE[name].layer(config, head_dim)
    for number in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{part}": shape for part, shape in layer.items()}
    return shapes
