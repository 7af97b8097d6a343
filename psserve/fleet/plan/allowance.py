"""What a server takes on a GPU beside weights and KV cache: CUDA's context, workspaces, activations, CUDA graphs.

An estimate, which measured.py corrects where a fleet of the zoo was ready once. It follows SGLang's own reckoning
(`ServerArgs._handle_gpu_memory_settings` and `reserve_for_graph_mb`), but for activations, which SGLang counts at
1.5 MiB a token whatever the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Role = Literal["prefill", "decode"]
MIB = 1024**2
GIB = 1024**3

WORKSPACE_BYTES = 512 * MIB
"""Of the attention kernels: 384 or 512 MiB with flashinfer, as SGLang sets it."""
RANK_BYTES = 128 * MIB
"""For talking to each other, on each of the GPUs of a server: so much for every one of them."""
DECODE_GRAPH_BYTES = 2 * MIB
"""CUDA graphs of a decode server, for each request of its largest batch."""
PREFILL_GRAPH_BYTES = 8 * MIB
"""CUDA graphs of a prefill server, for each size of a chunk that has one."""
LOGIT_BYTES = 12
"""float32 logits, probabilities, and a copy that is sorted, for each token of the vocabulary and request."""
REQUESTS = 2_048
"""Requests that SGLang keeps tables for where nobody says how many run at a time, unless pools are very large."""
WIDTH_OF_ACTIVATIONS = 16
"""Values that a layer holds at once for a token, in hidden sizes: the MLP's three widths of about 3.5, and more."""
WIDTH_WITHOUT_MLP = 5.5
"""The part of it that is not the MLP's."""
PARAMETERS_OF_LAYER = 12
"""In squares of the hidden size: attention's 2 to 4, and the MLP's 8 to 11."""


@dataclass(frozen=True)
class Card:
    """What SGLang chooses, and what CUDA takes, on a GPU with less memory than this."""

    below_bytes: float
    chunk: int
    """Longest piece of a prompt computed in one step, in tokens."""
    batch: int
    """Largest batch of requests that has a CUDA graph."""
    batch_of_four: int
    """The same for servers on four GPUs and more."""
    prefill_graphs: int
    """Sizes of a chunk that have a CUDA graph."""
    context_bytes: int
    """CUDA's context, cuBLAS, NIXL: the more multiprocessors, the more. psserve's guess."""
    requests: int | None
    """Requests that a server may run at a time, where nobody says: psserve's choice, as SGLang's tables would be
    as large as on a large card. None: SGLang's choice."""


_CARDS = (
    Card(20 * GIB, chunk=2_048, batch=8, batch_of_four=8, prefill_graphs=42, context_bytes=384 * MIB, requests=256),
    # SGLang before 0.5.21 chooses a chunk of 2,048 and batches of 24 and 80 here: with it, some memory stays free.
    Card(35 * GIB, chunk=4_096, batch=48, batch_of_four=160, prefill_graphs=50, context_bytes=448 * MIB, requests=256),
    Card(60 * GIB, chunk=4_096, batch=32, batch_of_four=160, prefill_graphs=50, context_bytes=512 * MIB, requests=512),
    Card(
        160 * GIB, chunk=8_192, batch=256, batch_of_four=512, prefill_graphs=58, context_bytes=640 * MIB, requests=None
    ),
    Card(
        math.inf, chunk=16_384, batch=512, batch_of_four=512, prefill_graphs=74, context_bytes=768 * MIB, requests=None
    ),
)


def card(total_bytes: int) -> Card:
    """SGLang's choices for a GPU of this memory."""
    return next(card for card in _CARDS if total_bytes < card.below_bytes)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What the servers of a fleet are counted with, beside weights and KV cache."""

    card: Card
    token_bytes: int
    """Activations of one token."""
    vocab_size: int
    context_length: int
    chunk: int | None
    """None: SGLang's choice for the card."""
    requests: int | None
    """That run at a time. None: SGLang's choice."""

    def bytes_on_gpu(self, role: Role, tp: int) -> int:
        """Bytes that a server takes on each of its `tp` GPUs."""
        tables = 4 * (self.requests or REQUESTS) * self.context_length
        ranks = RANK_BYTES * tp if tp > 1 else 0
        graphs = PREFILL_GRAPH_BYTES * self.card.prefill_graphs if role == "prefill" else self._decode_graphs(tp)
        return self.card.context_bytes + WORKSPACE_BYTES + tables + ranks + graphs + self.activations(role, tp)

    def activations(self, role: Role, tp: int) -> int:
        """The part of it that is taken when a server first has as much to compute as it can."""
        if role == "prefill":
            return (self.chunk or self.card.chunk) * self.token_bytes
        return self._batch(tp) * (self.token_bytes + LOGIT_BYTES * self.vocab_size)

    def kind(self, role: Role, tp: int) -> str:
        """All that decides what a server takes, in words that can be a key."""
        chosen = f"chunk {self.chunk}, requests {self.requests}, context {self.context_length}"
        model = f"vocabulary {self.vocab_size}, activations {self.token_bytes}"
        return f"{role}, tp {tp}, {chosen}, {model}, card below {self.card.below_bytes / GIB:g} GiB"

    def _decode_graphs(self, tp: int) -> int:
        return self._batch(tp) * DECODE_GRAPH_BYTES

    def _batch(self, tp: int) -> int:
        graphed = self.card.batch if tp < 4 else self.card.batch_of_four
        return min(self.requests or graphed, graphed)


def activation_bytes(parameters: float, layers: int, dtype_bytes: int) -> int:
    """Activations of one token, for a model of so many parameters in so many layers."""
    hidden = math.sqrt(parameters / layers / PARAMETERS_OF_LAYER)
    return int(WIDTH_OF_ACTIVATIONS * hidden * dtype_bytes)


def mixture_activation_bytes(hidden: int, inner: int, chosen: int, dtype_bytes: int) -> int:
    """Activations of one token, for a model of layers with experts, `inner` wide, of which a token is given `chosen`.

    SGLang computes them side by side: gate and up, their product, and what each makes of the token.
    """
    return int((WIDTH_WITHOUT_MLP * hidden + chosen * (3 * inner + hidden)) * dtype_bytes)
