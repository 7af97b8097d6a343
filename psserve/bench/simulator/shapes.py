"""The models that can be simulated: what a token costs to compute and to keep."""

from __future__ import annotations

from dataclasses import dataclass

from psserve.errors import UsageError

ELEMENT_BYTES = 2
"""Of weights and KV: bfloat16."""


@dataclass(frozen=True)
class Shape:
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


SHAPES: dict[str, Shape] = {
    "Llama-3.1-8B": Shape(32, 4096, 32, 8, 128, 14336, 128_256, tied=False),
    "Qwen3-0.6B": Shape(28, 1024, 16, 8, 128, 3072, 151_936, tied=True),
    "Qwen3-1.7B": Shape(28, 2048, 16, 8, 128, 6144, 151_936, tied=True),
    "Qwen3-8B": Shape(36, 4096, 32, 8, 128, 12288, 151_936, tied=False),
    "Qwen3-14B": Shape(40, 5120, 40, 8, 128, 17408, 151_936, tied=False),
}


def find_shape(name: str) -> Shape:
    """Raises UsageError for a model that is not in SHAPES."""
    if name not in SHAPES:
        raise UsageError(f"model {name!r} is not known: give one of {', '.join(SHAPES)}")
    return SHAPES[name]
