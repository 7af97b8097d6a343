from __future__ import annotations

import copy
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from psserve.training.batch import IGNORED, Tokenized, cache_batch, full_batch
from psserve.training.cache_loss import OVER_BASE_KV, answer_loss, cache_logits, full_logits, visible
from psserve.training.reference import ModelPair
from tests.training.plain import plain_loss

CASES = {
    "one turn": [(20, [(8, 20)])],
    "several turns": [(60, [(5, 12), (20, 21), (33, 60)])],
    "turns without a token between": [(20, [(4, 9), (9, 15), (15, 20)])],
    "no base context": [(9, [(1, 9)])],
    "one token of base context": [(9, [(2, 9)])],
    "first turn without base context": [(30, [(1, 6), (15, 30)])],
    "text after the last answer": [(30, [(10, 20)])],
    "padded batch": [(40, [(3, 10), (25, 40)]), (7, [(1, 7)]), (18, [(12, 14)]), (3, [(2, 3)])],
}


def conversation(length: int, answers: list[tuple[int, int]], seed: int = 0) -> Tokenized:
    draw = random.Random(length * 1000 + seed)
    return Tokenized([draw.randrange(512) for _ in range(length)], answers)


def conversations(case: str) -> list[Tokenized]:
    return [conversation(length, answers, seed) for seed, (length, answers) in enumerate(CASES[case])]


def trainable(model: PreTrainedModel) -> PreTrainedModel:
    module = copy.deepcopy(model).requires_grad_(True).train()
    module.set_attn_implementation(OVER_BASE_KV)
    return module


def gradients(module: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None}


def fast_loss(base: PreTrainedModel, module: PreTrainedModel, batch: list[Tokenized]) -> torch.Tensor:
    packed = cache_batch(batch)
    return answer_loss(cache_logits(base, module, packed), packed["labels"]) / packed["labels"].ne(IGNORED).sum()


def assert_equal(pair: ModelPair, batch: list[Tokenized]) -> None:
    module = trainable(pair.module)
    plain, fast = plain_loss(pair.base, module, batch), fast_loss(pair.base, module, batch)
    assert fast.item() == pytest.approx(plain.item(), abs=1e-5)
    wanted, found = gradients(module, plain), gradients(module, fast)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("case", CASES)
def test_one_pass_equals_the_plain_path_in_loss_and_gradients(alpha: ModelPair, case: str) -> None:
    assert_equal(alpha, conversations(case))


@st.composite
def any_conversation(draw: st.DrawFn) -> Tokenized:
    bounds = sorted(draw(st.sets(st.integers(1, 40), min_size=2, max_size=8)))
    answers = list(zip(bounds[::2], bounds[1::2], strict=False))
    return conversation(bounds[-1] + draw(st.integers(0, 3)), answers, draw(st.integers(0, 99)))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(any_conversation(), min_size=1, max_size=3))
def test_any_batch_equals_the_plain_path(alpha: ModelPair, batch: list[Tokenized]) -> None:
    assert_equal(alpha, batch)


def test_gradient_checkpointing_changes_nothing(alpha: ModelPair) -> None:
    batch = conversations("padded batch")
    module = trainable(alpha.module)
    wanted = gradients(module, fast_loss(alpha.base, module, batch))
    module.gradient_checkpointing_enable()
    found = gradients(module, fast_loss(alpha.base, module, batch))
    assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())


def test_padding_changes_no_gradient_of_the_others(alpha: ModelPair) -> None:
    short, long = conversations("one turn")[0], conversation(50, [(30, 50)], seed=9)
    module = trainable(alpha.module)
    labels = cache_batch([short, long])["labels"]
    labels[1] = IGNORED  # the long one only pads
    both = answer_loss(cache_logits(alpha.base, module, cache_batch([short, long])), labels)
    found = gradients(module, both / short.answer_tokens)
    for name, gradient in gradients(module, fast_loss(alpha.base, module, [short])).items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5)


def test_the_base_gets_no_gradient(alpha: ModelPair) -> None:
    base = copy.deepcopy(alpha.base).requires_grad_(True)
    fast_loss(base, trainable(alpha.module), conversations("one turn")).backward()
    assert all(parameter.grad is None for parameter in base.parameters())


def test_the_base_matters(alpha: ModelPair) -> None:
    batch = conversations("one turn")
    module = trainable(alpha.module)
    assert fast_loss(alpha.base, module, batch).item() != pytest.approx(
        fast_loss(alpha.module, module, batch).item(), abs=1e-3
    )


def test_over_its_own_cache_a_module_trains_as_in_full_fine_tuning(alpha: ModelPair) -> None:
    batch = conversations("padded batch")
    module = trainable(alpha.module)
    packed = full_batch(batch)
    full = answer_loss(full_logits(module, packed), packed["labels"]) / packed["labels"].ne(IGNORED).sum()
    assert fast_loss(alpha.module, module, batch).item() == pytest.approx(full.item(), abs=1e-5)


def test_mask_is_the_picture() -> None:
    batch = cache_batch([conversation(9, [(2, 4), (6, 8)])])
    mask = visible(batch["context_lengths"], batch["positions"], batch["context_ids"].shape[1])
    assert ["".join(".X"[seen] for seen in row) for row in mask[0].tolist()] == [
        "X....X...",
        "X....XX..",
        "XXXXX..X.",
        "XXXXX..XX",
    ]
