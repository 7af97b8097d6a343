"""How long each kind of work takes on an otherwise idle device: the cost model.

prefill batch   a + b * sum(n) + c * sum(n * (n + 2h))      n new tokens after h cached ones
decode step     a + b * sum(context) + c * batch
transfer        a + b * bytes
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psserve.bench.simulator.hardware import COMPUTE_SHARE, MEMORY_SHARE, POOL_SHARE, Card
from psserve.bench.simulator.shapes import Shape
from psserve.errors import UsageError

PREFILL_OVERHEAD_S = 2e-3
"""Scheduling and launching one prefill batch: an assumption."""
STEP_OVERHEAD_S = 1e-3
"""Of one decode step with CUDA graphs: likewise."""
TRANSFER_OVERHEAD_S = 2e-3
"""Handshake and posting of one request's KV: likewise."""
ROUTER_S = 1e-3
"""What the router adds before servers see a request."""


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


def costs_of(shape: Shape, card: Card) -> Costs:
    """From published figures. The smallest prefill batch still reads all weights, hence that term in its constant."""
    flops, memory = card.flops * COMPUTE_SHARE, card.bytes_per_s * MEMORY_SHARE
    weights_s = shape.read_bytes / memory
    return Costs(
        PrefillCosts(PREFILL_OVERHEAD_S + weights_s, shape.linear_flops / flops, shape.attention_flops / 2 / flops),
        DecodeCosts(STEP_OVERHEAD_S + weights_s, shape.kv_bytes / memory, shape.linear_flops / flops),
        TransferCosts(TRANSFER_OVERHEAD_S, 1 / card.link_bytes_per_s),
        shape.kv_bytes,
    )


def pool_tokens(shape: Shape, card: Card) -> int:
    """Tokens of KV that fit beside one model's weights on one card. Raises UsageError if the weights leave no room."""
    tokens = int((card.memory_bytes * POOL_SHARE - shape.weight_bytes) / shape.kv_bytes)
    if tokens < 1:
        raise UsageError("the model's weights leave no room for KV on this card: choose a smaller model or larger card")
    return tokens
