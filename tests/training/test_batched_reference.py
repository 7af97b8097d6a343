"""Batches answer exactly as the reference does, one prompt at a time."""

from __future__ import annotations

import random

import pytest

from psserve.training.batched_reference import generate_batch
from psserve.training.reference import ModelPair, reference_answer

LENGTHS = (1, 2, 40, 17, 3, 40, 1, 28)


def prompts(vocab_size: int) -> list[list[int]]:
    rng = random.Random(5)
    return [[rng.randrange(4, vocab_size) for _ in range(length)] for length in LENGTHS]


def test_a_batch_equals_one_at_a_time(alpha: ModelPair) -> None:
    asked = prompts(alpha.base.config.vocab_size)
    wanted = [reference_answer(alpha.base, alpha.module, prompt, 12).tokens for prompt in asked]
    assert generate_batch(alpha.base, alpha.module, asked, 12) == wanted


def test_answers_that_stop_early_do_not_disturb_the_others(alpha: ModelPair) -> None:
    asked = prompts(alpha.base.config.vocab_size)
    whole = [reference_answer(alpha.base, alpha.module, prompt, 12).tokens for prompt in asked]
    stops = {answer[i % 5] for i, answer in enumerate(whole)}
    wanted = [reference_answer(alpha.base, alpha.module, prompt, 12, stop_ids=stops).tokens for prompt in asked]
    assert len({len(answer) for answer in wanted}) > 2
    assert generate_batch(alpha.base, alpha.module, asked, 12, stop_ids=stops) == wanted


def test_without_base_kv_the_module_answers_alone(alpha: ModelPair) -> None:
    asked = prompts(alpha.base.config.vocab_size)
    wanted = [reference_answer(alpha.module, alpha.module, prompt, 12).tokens for prompt in asked]
    assert generate_batch(alpha.base, alpha.module, asked, 12, base_share=0) == wanted


def test_half_of_the_kv_is_a_mixture(alpha: ModelPair) -> None:
    asked = prompts(alpha.base.config.vocab_size)
    answers = [generate_batch(alpha.base, alpha.module, asked, 12, base_share=share) for share in (0, 0.5, 1)]
    assert answers[1] not in (answers[0], answers[2])
    same_model = [generate_batch(alpha.module, alpha.module, asked, 12, base_share=share) for share in (0, 0.5, 1)]
    assert same_model[0] == same_model[1] == same_model[2]


def test_an_empty_prompt_is_refused(alpha: ModelPair) -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        generate_batch(alpha.base, alpha.module, [[1], []], 4)
