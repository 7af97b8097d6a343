"""What a server is counted with beside weights and KV cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from psserve.fleet.plan.allowance import MIB, Allowance, activation_bytes, card, mixture_activation_bytes
from tests.fleet.planning import GIB

SMALL = Allowance(
    card=card(12 * GIB),
    token_bytes=activation_bytes(596e6, layers=28, dtype_bytes=2),
    vocab_size=151_936,
    context_length=40_960,
    chunk=None,
    requests=256,
)
"""Qwen3-0.6B on a card of 12 GB."""


@pytest.mark.parametrize(
    ("gib", "chunk", "batch"),
    [(12, 2_048, 8), (24, 4_096, 48), (48, 4_096, 32), (80, 8_192, 256), (141, 8_192, 256), (180, 16_384, 512)],
)
def test_cards_are_served_as_sglang_chooses(gib: int, chunk: int, batch: int) -> None:
    found = card(gib * GIB)
    assert (found.chunk, found.batch) == (chunk, batch)


@pytest.mark.parametrize(
    ("parameters", "layers", "hidden"), [(596e6, 28, 1_024), (8.2e9, 36, 4_096), (70.6e9, 80, 8_192)]
)
def test_activations_are_those_of_the_models_width(parameters: float, layers: int, hidden: int) -> None:
    values = activation_bytes(parameters, layers, dtype_bytes=2) / 2
    assert 0.9 < values / (16 * hidden) < 1.4


@pytest.mark.parametrize(
    ("hidden", "inner", "chosen", "widths"),
    [(2_048, 768, 8, 22.5), (4_096, 14_336, 2, 28.5), (2_048, 1_024, 8, 25.5)],
)
def test_experts_count_as_far_as_a_token_is_given_them(hidden: int, inner: int, chosen: int, widths: float) -> None:
    """Qwen3-30B-A3B, Mixtral 8x7B, OLMoE-1B-7B."""
    assert mixture_activation_bytes(hidden, inner, chosen, dtype_bytes=2) == widths * hidden * 2


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_small_model_on_a_small_card_needs_little(role: Any) -> None:
    assert 0.9 * GIB < SMALL.bytes_on_gpu(role, tp=1) < 1.5 * GIB


@pytest.mark.parametrize(
    ("role", "changes"),
    [
        ("prefill", {"card": card(80 * GIB)}),
        ("decode", {"card": card(80 * GIB)}),
        ("prefill", {"chunk": 8_192}),
        ("prefill", {"context_length": 131_072}),
        ("decode", {"context_length": 131_072}),
        ("decode", {"requests": 4_096}),
        ("decode", {"token_bytes": 2 * SMALL.token_bytes}),
    ],
)
def test_it_grows_with_card_chunk_context_and_batch(role: Any, changes: dict[str, Any]) -> None:
    assert replace(SMALL, **changes).bytes_on_gpu(role, 1) > SMALL.bytes_on_gpu(role, 1)


def test_few_requests_need_less() -> None:
    few = replace(SMALL, requests=4)
    assert SMALL.bytes_on_gpu("decode", 1) - few.bytes_on_gpu("decode", 1) > 4 * 252 * 40_960


@pytest.mark.parametrize(("gib", "requests"), [(12, 256), (24, 256), (48, 512), (80, None), (180, None)])
def test_a_small_card_keeps_tables_for_fewer_requests(gib: int, requests: int | None) -> None:
    assert card(gib * GIB).requests == requests


def test_several_gpus_talk_to_each_other() -> None:
    assert SMALL.bytes_on_gpu("prefill", 2) - SMALL.bytes_on_gpu("prefill", 1) == 2 * 128 * MIB
