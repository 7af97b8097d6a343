"""How long each kind of work takes on an otherwise idle device: the cost model.

prefill batch   a + b * sum(n) + c * sum(n * (n + 2h))      n new tokens after h cached ones
decode step     a + b * sum(context) + c * batch
transfer        a + b * bytes

The constants follow from a model's shape and a card's data sheet, both listed here, or from measured runs
(calibration.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psserve.errors import UsageError

PREFILL_OVERHEAD_S = 2e-3
"""Scheduling and launching one prefill batch: an assumption."""
STEP_OVERHEAD_S = 1e-3
"""Of one decode step with CUDA graphs: likewise."""
TRANSFER_OVERHEAD_S = 2e-3
"""Handshake and posting of one request's KV: likewise."""
ROUTER_S = 1e-3
"""What the router adds before servers see a request."""
COMPUTE_SHARE = 0.5
"""Of the peak FLOP/s that a prefill reaches: a planning assumption, to be replaced by a calibration."""
MEMORY_SHARE = 0.7
"""Of the peak memory bandwidth that a decode step reaches: likewise."""
POOL_SHARE = 0.85
"""Of a card's memory that weights and KV take up (SGLang's --mem-fraction-static)."""


@dataclass(frozen=True)
class PrefillCosts:
    """Seconds a batch, a new token, and a pair of a new token and a token that it looks at (counted twice)."""

    batch_s: float
    token_s: float
    pair_s: float

    def seconds(self, parts: Iterable[tuple[int, int]]) -> float:
        """Of a batch of parts: (new tokens, tokens before them)."""
        tokens = pairs = 0
        for new, before in parts:
            tokens += new
            pairs += new * (new + 2 * before)
        return self.batch_s + self.token_s * tokens + self.pair_s * pairs


@dataclass(frozen=True)
class DecodeCosts:
    """Seconds a step, a token of context, and a sequence."""

    step_s: float
    context_s: float
    sequence_s: float

    def seconds(self, steps: int, context: int, batch: int) -> float:
        """Of `steps` steps in a row of one batch, whose `context` grows by a token a sequence and step."""
        first = self.step_s + self.context_s * context + self.sequence_s * batch
        return steps * first + self.context_s * batch * (steps * (steps - 1) / 2)


@dataclass(frozen=True)
class TransferCosts:
    """Seconds a request and a byte."""

    request_s: float
    byte_s: float

    def seconds(self, size: int) -> float:
        return self.request_s + self.byte_s * size


@dataclass(frozen=True)
class Costs:
    """All of one model on one kind of device."""

    prefill: PrefillCosts
    decode: DecodeCosts
    transfer: TransferCosts
    kv_bytes: int
    """Of one token."""
    router_s: float = ROUTER_S
    answer_s: float = 0.0
    """From the last step to the client, and as long from the first: detokenizing, router, network."""


def costs_of(shape: ModelShape, card: Card) -> Costs:
    """From published figures. The smallest prefill batch still reads all weights, hence that term in its constant."""
    flops, memory = card.flops * COMPUTE_SHARE, card.bytes_per_s * MEMORY_SHARE
    weights_s = shape.read_bytes / memory
    return Costs(
        PrefillCosts(PREFILL_OVERHEAD_S + weights_s, shape.linear_flops / flops, shape.attention_flops / 2 / flops),
        DecodeCosts(STEP_OVERHEAD_S + weights_s, shape.kv_bytes / memory, shape.linear_flops / flops),
        TransferCosts(TRANSFER_OVERHEAD_S, 1 / card.link_bytes_per_s),
        shape.kv_bytes,
    )


def pool_tokens(shape: ModelShape, card: Card) -> int:
    """Tokens of KV that fit beside one model's weights on one card. Raises UsageError if the weights leave no room."""
    tokens = int((card.memory_bytes * POOL_SHARE - shape.weight_bytes) / shape.kv_bytes)
    if tokens < 1:
        raise UsageError("the model's weights leave no room for KV on this card: choose a smaller model or larger card")
    return tokens


ELEMENT_BYTES = 2
"""Of weights and KV: bfloat16."""


@dataclass(frozen=True)
class ModelShape:
    """A decoder-only Transformer with grouped-query attention and a gated feed-forward, from its config.json."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    tied: bool
    """The output head is the embedding."""

    @property
    def layer_parameters(self) -> int:
        """All that a token is multiplied with but the output head."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (2 * queries + 2 * keys)
        return self.layers * (attention + 3 * self.hidden * self.feed_forward)

    @property
    def weight_bytes(self) -> int:
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return (self.layer_parameters + embeddings) * ELEMENT_BYTES

    @property
    def read_bytes(self) -> int:
        """What one decode step reads of the weights: the layers and the output head."""
        return (self.layer_parameters + self.vocabulary * self.hidden) * ELEMENT_BYTES

    @property
    def kv_bytes(self) -> int:
        """Of one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim * ELEMENT_BYTES

    @property
    def linear_flops(self) -> int:
        """Of one token, without attention."""
        return 2 * self.layer_parameters

    @property
    def attention_flops(self) -> int:
        """Of one token that looks at one token."""
        return 4 * self.layers * self.heads * self.head_dim


SHAPES: dict[str, ModelShape] = {
    "Llama-3.1-8B": ModelShape(32, 4096, 32, 8, 128, 14336, 128_256, tied=False),
    "Qwen3-0.6B": ModelShape(28, 1024, 16, 8, 128, 3072, 151_936, tied=True),
    "Qwen3-1.7B": ModelShape(28, 2048, 16, 8, 128, 6144, 151_936, tied=True),
    "Qwen3-8B": ModelShape(36, 4096, 32, 8, 128, 12288, 151_936, tied=False),
    "Qwen3-14B": ModelShape(40, 5120, 40, 8, 128, 17408, 151_936, tied=False),
}


def find_shape(name: str) -> ModelShape:
    """Raises UsageError for a model that is not in SHAPES."""
    if name not in SHAPES:
        raise UsageError(f"model {name!r} is not known: give one of {', '.join(SHAPES)}")
    return SHAPES[name]


@dataclass(frozen=True)
class Card:
    """One GPU, as its data sheet has it."""

    memory_bytes: float
    bytes_per_s: float
    """Of its memory."""
    flops: float
    """Dense bfloat16, a second."""
    link_bytes_per_s: float
    """NVLink, one way."""


CARDS: dict[str, Card] = {
    "A100-80G": Card(80e9, 2.039e12, 312e12, 300e9),
    "H100": Card(80e9, 3.35e12, 989e12, 450e9),
    "H200": Card(141e9, 4.8e12, 989e12, 450e9),
}


def find_card(name: str) -> Card:
    """Raises UsageError for a card that is not in CARDS."""
    if name not in CARDS:
        raise UsageError(f"hardware {name!r} is not known: give one of {', '.join(CARDS)}")
    return CARDS[name]
