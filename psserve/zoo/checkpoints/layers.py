"""What a layer of each architecture is made of: its weights, by name, and their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]
"""A configuration as Transformers understands it, defaults filled in."""
Shapes = dict[str, tuple[int, ...]]
"""Name of a weight -> its shape."""


def joined(*parts: Shapes) -> Shapes:
    """The weights of a layer, of those of its parts."""
    return {name: shape for part in parts for name, shape in part.items()}


def attention(config: Config, head_dim: int, *biased: str) -> Shapes:
    """The four projections; those named in `biased` have a bias."""
    hidden = config["hidden_size"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    shapes: Shapes = {"q": (queries, hidden), "k": (keys, hidden), "v": (keys, hidden), "o": (hidden, queries)}
    return projections("self_attn", shapes, biased)


def feed_forward(config: Config, *biased: str) -> Shapes:
    """The gated feed-forward network; those named in `biased` have a bias."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return projections("mlp", {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}, biased)


def projections(part: str, shapes: Shapes, biased: tuple[str, ...]) -> Shapes:
    """Linear layers of a part of a layer, [out, in]."""
    weights = {f"{part}.{name}_proj.weight": shape for name, shape in shapes.items()}
    return weights | {f"{part}.{name}_proj.bias": shapes[name][:1] for name in biased}


def norms(config: Config) -> Shapes:
    """The two norms of a layer."""
    shape = (config["hidden_size"],)
    return {"input_layernorm.weight": shape, "post_attention_layernorm.weight": shape}


def llama_layer(config: Config, head_dim: int) -> Shapes:
    """Llama's: biases where the configuration says so."""
    return joined(
        attention(config, head_dim, *("qkvo" if config.get("attention_bias") else "")),
        feed_forward(config, *(("gate", "up", "down") if config.get("mlp_bias") else ())),
        norms(config),
    )


def qwen2_layer(config: Config, head_dim: int) -> Shapes:
    """Always with biases of queries, keys and values."""
    return joined(attention(config, head_dim, "q", "k", "v"), feed_forward(config), norms(config))


def qwen3_layer(config: Config, head_dim: int) -> Shapes:
    """Llama's, with norms of queries and keys."""
    return joined(llama_layer(config, head_dim), head_norms(head_dim))


def head_norms(head_dim: int) -> Shapes:
    """Norms of each head's query and key."""
    return {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}


def gemma3_layer(config: Config, head_dim: int) -> Shapes:
    """Qwen3's, with two more norms."""
    shape = (config["hidden_size"],)
    more: Shapes = {"pre_feedforward_layernorm.weight": shape, "post_feedforward_layernorm.weight": shape}
    return joined(qwen3_layer(config, head_dim), more)


def phi3_layer(config: Config, head_dim: int) -> Shapes:
    """Queries, keys and values in one projection, gate and up in another."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    fused: Shapes = {
        "self_attn.qkv_proj.weight": (queries + 2 * keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_up_proj.weight": (2 * inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    return joined(fused, norms(config))


def experts(part: str, names: tuple[str, str, str], config: Config, inner: int) -> Shapes:
    """A router and gated networks of width `inner`: `names` are what gate, up and down are called."""
    hidden, count = config["hidden_size"], expert_count(config)
    shapes: Shapes = {f"{part}.gate.weight": (count, hidden)}
    for expert in range(count):
        for name, shape in zip(names, ((inner, hidden), (inner, hidden), (hidden, inner)), strict=True):
            shapes[f"{part}.experts.{expert}.{name}.weight"] = shape
    return shapes


def expert_count(config: Config) -> int:
    """How many experts a layer has, 0 for none. Transformers has renamed the field in some architectures."""
    return int(config.get("num_local_experts") or config.get("num_experts") or 0)


def qwen3_moe_layer(config: Config, head_dim: int) -> Shapes:
    """Qwen3's, with experts in all layers."""
    names, inner = ("gate_proj", "up_proj", "down_proj"), config["moe_intermediate_size"]
    return joined(
        attention(config, head_dim, *("qkvo" if config.get("attention_bias") else "")),
        head_norms(head_dim),
        experts("mlp", names, config, inner),
        norms(config),
    )


def mixtral_layer(config: Config, head_dim: int) -> Shapes:
    """Mistral's, with experts in all layers."""
    inner = config["intermediate_size"]
    networks = experts("block_sparse_moe", ("w1", "w3", "w2"), config, inner)
    return joined(attention(config, head_dim), networks, norms(config))


def olmoe_layer(config: Config, head_dim: int) -> Shapes:
    """Experts in all layers. Queries and keys have norms over all heads together, which SGLang has of one width."""
    names, inner = ("gate_proj", "up_proj", "down_proj"), config["intermediate_size"]
    own: Shapes = {f"self_attn.{name}_norm.weight": (config["hidden_size"],) for name in "qk"}
    return joined(attention(config, head_dim), own, experts("mlp", names, config, inner), norms(config))
