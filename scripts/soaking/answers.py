"""What a soak asks and must hear: prompts that share beginnings, and the reference's greedy answers to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from psserve.zoo import Zoo

WORDS = range(10, 500)  # token ids of ordinary text in the synthetic vocabulary
ANSWER_TOKENS = 24
BEGINNINGS = 6
PROMPTS = 24


@dataclass(frozen=True)
class Question:
    """A prompt for one module, and the tokens of the right answer."""

    module: str
    prompt: list[int]
    answer: list[int]


def make_questions(zoo: Zoo, modules: Sequence[str], rng: random.Random) -> list[Question]:
    """Every prompt for every module. Computes the answers by the reference, in this process."""
    import torch

    from psserve.training.reference import load_pair, reference_answer

    torch.set_num_threads(1)
    beginnings = [_ids(rng, rng.randrange(20, 160)) for _ in range(BEGINNINGS)]
    prompts = [beginnings[number % BEGINNINGS] + _ids(rng, rng.randrange(1, 60)) for number in range(PROMPTS)]
    questions = []
    for module in modules:
        base, decoder = load_pair(zoo, module)
        for prompt in prompts:
            right = reference_answer(base, decoder, prompt, ANSWER_TOKENS, stop_ids=zoo.base.eos_token_ids)
            questions.append(Question(module, prompt, list(right.tokens)))
    return questions


def _ids(rng: random.Random, count: int) -> list[int]:
    return [rng.choice(WORDS) for _ in range(count)]
