"""Answers that are sent with their prompts, and what the module must say of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from psserve.training.reference import ProcessLogits, ReferenceAnswer, prefill, reference_answer
from tests.e2e.client import Client, random_ids
from tests.e2e.oracle import Oracle


class Given(NamedTuple):
    """A prompt that the base's template rendered, and an answer to it."""

    prompt: list[int]
    answer: list[int]

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.answer


def given_answers(oracle: Oracle, count: int, seed: int) -> list[Given]:
    """Answers of random tokens, to chats of several lengths. Every other one has an end of turn in its middle."""
    rng, found = random.Random(seed), []
    (end,) = oracle.tokenizer.encode("<|im_end|>")
    for number in range(count):
        question = oracle.tokenizer.decode(random_ids(rng, rng.randrange(1, 90)))
        answer = random_ids(rng, rng.randrange(2, 12))
        if number % 2:
            answer = [*answer, end, *random_ids(rng, 2)]
        found.append(Given(oracle.chat_prompt([{"role": "user", "content": question}]), answer))
    return found


async def ask(client: Client, module: str, given: Sequence[Given], **fields: Any) -> list[dict[str, Any]]:
    """The choices for all of them, in one request as lm-eval sends it."""
    prompts = [one.tokens for one in given]
    body = {"echo": True, "seed": 1234, "return_token_ids": False} | fields
    answer = await client.complete(module, prompts, 1, **body)
    assert answer["usage"]["prompt_tokens"] == sum(map(len, prompts))
    assert answer["usage"]["completion_tokens"] == len(prompts)
    return list(answer["choices"])


def giving(answer: Sequence[int]) -> ProcessLogits:
    """The tokens of `answer`, and then what the module itself says."""

    def process(prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        if len(output) < len(answer):
            logits[answer[len(output)]] = float("inf")
        return logits

    return process


def read_by_the_rule(oracle: Oracle, module: str, given: Given) -> ReferenceAnswer:
    """The answer's tokens and one more, each with its log-probability over the base's KV and the module's own."""
    prompt, answer = given
    return reference_answer(oracle.base, oracle.modules[module], prompt, len(answer) + 1, process_logits=giving(answer))


def check_given(oracle: Oracle, module: str, given: Sequence[Given], choices: Sequence[Mapping[str, Any]]) -> None:
    """Fail unless the answers were read by the rule, and what was generated after them is the module's."""
    for one, choice in zip(given, choices, strict=True):
        expected, logprobs = read_by_the_rule(oracle, module, one), choice["logprobs"]
        oracle.check_tokens(expected, expected.tokens, logprobs["token_logprobs"][len(one.prompt) :])
        assert logprobs["tokens"] == [oracle.tokenizer.decode([token]) for token in one.prompt + expected.tokens]


@torch.inference_mode()
def read_otherwise(oracle: Oracle, module: str, given: Given, base_reads: int) -> list[float]:
    """Log-probabilities of the answer's tokens where the base reads so many tokens, and the module the rest.

    Of those that the module gives: where the base reads all of the prompt, not of the first.
    """
    model, cache = oracle.modules[module], prefill(oracle.base, given.tokens[:base_reads])
    rest = torch.tensor([given.tokens[base_reads:-1]])
    logits = model(rest, past_key_values=cache, use_cache=True).logits[0, -len(given.answer) :].float()
    answer = torch.tensor(given.answer[-len(logits) :])
    return list(logits.log_softmax(-1).gather(-1, answer[:, None])[:, 0].tolist())
