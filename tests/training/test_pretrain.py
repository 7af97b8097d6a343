"""Pretraining of a small base."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch

from psserve.training.pretrain import PretrainConfig, Progress, fast_dtype, pretrain, rate
from psserve.zoo.synthetic import SHAPE, new_model

SMALL = SHAPE | {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 16}


def blocks() -> Iterator[list[int]]:
    """Tokens that follow from the one before."""
    while True:
        yield [(3 * token) % 16 for token in range(32)]


def run(steps: int) -> tuple[torch.nn.Module, list[float], list[Progress]]:
    torch.manual_seed(0)
    model = copy.deepcopy(new_model("qwen3", SMALL))
    seen: list[Progress] = []
    losses = pretrain(model, blocks(), PretrainConfig(steps=steps, batch_size=2, learning_rate=1e-2), seen.append)
    return model, losses, seen


def test_the_loss_falls() -> None:
    _, losses, _ = run(30)
    assert losses[-1] < losses[0] / 2


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = run(3)[0], run(3)[0]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_every_step_is_reported() -> None:
    _, losses, seen = run(4)
    assert [progress.step for progress in seen] == [1, 2, 3, 4]
    assert [progress.loss for progress in seen] == losses
    assert seen[-1].seconds_left == 0


def test_the_rate_rises_and_falls_to_a_tenth() -> None:
    rates = [rate(step, 100) for step in range(101)]
    assert rates.index(max(rates)) == 2
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[100] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, torch.float32),
        ({"architecture": "aarch64"}, torch.float32),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fast_dtype() == dtype
