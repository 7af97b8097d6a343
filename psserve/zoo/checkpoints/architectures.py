"""The architectures that can be served: one table of what psserve must know of each.

Every row is a decoder whose whole prompt state is the KV of all its tokens, and a token's KV depends on nothing but
the tokens before it: that is what lets modules share the base's. A row is here once the suite it names passes on it:
real SGLang servers, float32, the tokens of Transformers and its log-probabilities within 1e-4 (docs/bases.md). To add
one: a row, its synthetic shape in psserve/zoo/synthetic/shapes.py, and `make test-bases`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from psserve.zoo.checkpoints.rotary import rotary_problems

Config = Mapping[str, Any]
"""A configuration as Transformers understands it, defaults filled in."""
Shapes = dict[str, tuple[int, ...]]
"""Name of a weight -> its shape."""

CHECKS = 1
"""Raised with each check that is added to those of `config_problems`: zoos that were made before are held to it when
they are served."""

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


NO_BIAS = {"attention_bias": False, "mlp_bias": False}
BASES = "tests/e2e/test_bases.py"
DENSE = ("self_attn", "mlp")
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

MISSING = {
    "a soft cap on attention, which SGLang computes on GPUs alone, where no test has run": ("Gemma2ForCausalLM",),
    "attention sinks, which SGLang computes on GPUs alone, and windows, whose KV it keeps in a second pool": (
        "GptOssForCausalLM",
    ),
    "layers with a sliding window, whose KV SGLang keeps in a second pool that psserve does not hand over": (
        "Cohere2ForCausalLM",
        "Olmo3ForCausalLM",
        "MinistralForCausalLM",
    ),
    "compressed KV (MLA), for which psserve has no pool on a CPU, where tests would show that it is exact": (
        "DeepseekV2ForCausalLM",
        "DeepseekV3ForCausalLM",
        "KimiK2ForCausalLM",
        "MiniCPM3ForCausalLM",
    ),
    "recurrent layers, whose state after a prompt is not KV of its tokens": (
        "FalconH1ForCausalLM",
        "GraniteMoeHybridForCausalLM",
        "JambaForCausalLM",
        "Lfm2ForCausalLM",
        "Mamba2ForCausalLM",
        "MambaForCausalLM",
        "NemotronHForCausalLM",
        "Qwen3NextForCausalLM",
        "Qwen3_5ForCausalLM",
        "Qwen3_5ForConditionalGeneration",
    ),
    "pictures or sound beside text": (
        "Gemma3ForConditionalGeneration",
        "Gemma3nForConditionalGeneration",
        "Llama4ForConditionalGeneration",
        "LlavaForConditionalGeneration",
        "Mistral3ForConditionalGeneration",
        "MllamaForConditionalGeneration",
        "Phi4MMForCausalLM",
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3VLForConditionalGeneration",
    ),
}
"""What keeps architectures that people ask for from being served -> their names."""


def not_supported(name: str) -> str:
    """Why an architecture is refused, and which are near it, for a message."""
    why = next((why for why, names in MISSING.items() if name in names), None)
    reason = f"it has {why}" if why else "no test has shown that it is served exactly"
    near = ", ".join(f"{one} ({TABLE[one].models})" for one in nearest(name))
    return (
        f"architecture {name} is not supported: {reason}"
        f"{f'; near it is {near}' if near else ''} (supported: {', '.join(TABLE)})"
    )


def nearest(name: str) -> list[str]:
    """The supported architectures with the most similar names, the nearest first; of the same family, if any is."""
    family = name[:4].lower()
    same = [one for one in TABLE if one[:4].lower() == family]
    return difflib.get_close_matches(name, same or TABLE, n=3, cutoff=0.3 if same else 0.75)


def config_problems(row: Architecture, config: Config) -> Iterator[str]:
    """What in a configuration of this architecture is not served as Transformers computes it, in words."""
    yield from window_problems(row.windows, config)
    if config.get("hidden_act", "silu") != "silu":
        yield f"hidden_act is {config['hidden_act']!r}, and SGLang has 'silu' alone"
    yield from rotary_problems(row.rotary, row.partial_rotary, config)
    for name, value in row.fixed.items():
        if config.get(name, value) != value:
            yield f"{name} is {json.dumps(config[name])}, and SGLang computes as if it were {json.dumps(value)}"


def window_problems(windows: bool, config: Config) -> Iterator[str]:
    """What tells of attention that does not see the whole context; with `windows`, other than by a window."""
    kinds = config.get("layer_types")
    served = ("full_attention", "sliding_attention") if windows else ("full_attention",)
    others = [kind for kind in kinds if kind not in served] if isinstance(kinds, list) else []
    if others:
        yield f"layers of {others[0]} (layer_types), whose KV SGLang keeps otherwise"
    window, context = config.get("sliding_window"), config["max_position_embeddings"]
    if windows:
        if type(window) is not int or window < 1:
            yield f"sliding_window is {window!r}, not a number of tokens"
        return
    if not others and window is not None and not (type(window) is int and window >= context):
        yield (
            f"a sliding window of {window!r} tokens in a context of {context} (sliding_window), which SGLang ignores or"
            " keeps otherwise"
        )


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
