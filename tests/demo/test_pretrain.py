"""Pretraining of a small base."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import torch

from psserve.demo.pretrain import PretrainConfig, StateFile, StepStats, fast_dtype, pretrain, rate
from psserve.zoo.synthetic.zoo import new_model

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 16}


def blocks() -> Iterator[list[int]]:
    """Tokens that follow from the one before; no two blocks in a row are the same."""
    for first in count():
        yield [(3 * token + first) % 16 for token in range(32)]


def run(
    steps: int, state: StateFile | None = None, report: Callable[[StepStats], None] = lambda _: None
) -> tuple[torch.nn.Module, list[float], list[StepStats]]:
    """The model, its losses and what was reported; `report` is told, too."""
    torch.manual_seed(0)
    model = copy.deepcopy(new_model("qwen3", SMALL))
    seen: list[StepStats] = []

    def note(progress: StepStats) -> None:
        seen.append(progress)
        report(progress)

    losses = pretrain(model, blocks(), PretrainConfig(steps=steps, batch_size=2, learning_rate=1e-2), note, state)
    return model, losses, seen


def test_the_loss_falls() -> None:
    _, losses, _ = run(30)
    assert losses[-1] < losses[0] / 2


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = run(3)[0], run(3)[0]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


class Interrupted(Exception):
    """In place of Ctrl-C."""


def interrupted_at(step: int) -> Callable[[StepStats], None]:
    def report(progress: StepStats) -> None:
        if progress.step == step:
            raise Interrupted

    return report


def interrupt(state: StateFile, step: int) -> None:
    """Leave the state of a run of six steps that was interrupted at one of them."""
    with pytest.raises(Interrupted):
        run(6, state, interrupted_at(step))


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psserve.demo.pretrain.SAVE_EVERY", 2)
    state = StateFile(tmp_path / "state.pt", "one run")
    interrupt(state, 5)
    model, losses, seen = run(6, state)
    whole, all_losses, _ = run(6)
    assert [progress.step for progress in seen] == [5, 6]
    assert losses == all_losses
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.pt", "one run")
    first, losses, _ = run(3, state)
    second, again, seen = run(3, state)
    assert (seen, again) == ([], losses)
    pretrain(second, iter(()), PretrainConfig(steps=3, batch_size=2), lambda _: None, state)  # reads no blocks either
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_state_of_another_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psserve.demo.pretrain.SAVE_EVERY", 2)
    interrupt(StateFile(tmp_path / "state.pt", "one run"), 5)
    assert len(run(3, StateFile(tmp_path / "state.pt", "another"))[2]) == 3


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
