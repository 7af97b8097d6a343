"""The architectures that can be served: one table of what psserve must know of each.

Every row is a decoder whose whole prompt state is the KV of all its tokens, and a token's KV depends on nothing but
the tokens before it: that is what lets modules share the base's. A row is here once the suite it names passes on it:
real SGLang servers, float32, the tokens of Transformers and its log-probabilities within 1e-4 (docs/bases.md). To add
one: a row, its synthetic shape in psserve/zoo/synthetic/shapes.py, and `make test-bases`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from psserve.zoo.checkpoints.rotary import rotary_problems

Config = Mapping[str, Any]
"""A configuration as Transformers understands it, defaults filled in."""
Shapes = dict[str, tuple[int, ...]]
"""Name of a weight -> its shape."""

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


def qwen3_layer(config: Config, head_dim: int) -> Shapes:
    """Llama's, with norms of queries and keys."""
    return llama_layer(config, head_dim) | {
        "self_attn.q_norm.weight": (head_dim,),
        "self_attn.k_norm.weight": (head_dim,),
    }


TABLE = {
    row.name: row
    for row in (
        Architecture(
            "LlamaForCausalLM", "llama", "Llama 2, 3, 3.1, 3.2", "llama", llama_layer, "tests/e2e/test_exactness.py"
        ),
        Architecture("Qwen3ForCausalLM", "qwen3", "Qwen3", "qwen3", qwen3_layer, "tests/e2e/test_exactness.py"),
    )
}
"""Name -> row, in the order of documents."""

MISSING = {
    "layers with a sliding window, whose KV SGLang keeps in a second pool that psserve does not hand over": (
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Gemma3ForConditionalGeneration",
        "Cohere2ForCausalLM",
        "GptOssForCausalLM",
        "Olmo3ForCausalLM",
        "MinistralForCausalLM",
    ),
    "compressed KV (MLA), of another layout": (
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
    yield from window_problems(config)
    yield from rotary_problems(row.rotary, row.partial_rotary, config)
    for name, value in row.fixed.items():
        if config.get(name, value) != value:
            yield f"{name} is {config[name]!r}, and SGLang serves {value!r} alone"


def window_problems(config: Config) -> Iterator[str]:
    """What tells of attention that does not see the whole context."""
    kinds = config.get("layer_types")
    others = [kind for kind in kinds if kind != "full_attention"] if isinstance(kinds, list) else []
    if others:
        yield f"layers of {others[0]} (layer_types), whose KV SGLang keeps otherwise"
    window, context = config.get("sliding_window"), config["max_position_embeddings"]
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
