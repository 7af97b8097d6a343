"""What SGLang does to logits before it picks a token, done to the reference's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy
import torch

from psserve.engine.fixes.json_grammar import of_schema
from psserve.training.reference import ProcessLogits
from tests.e2e.oracle import Oracle


class JsonMask:
    """The grammar's mask on the reference's logits, by the library that SGLang uses."""

    def __init__(self, oracle: Oracle, module: str, schema: dict[str, Any]) -> None:
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        base = oracle.zoo.base
        tokenizer = from_tokenizer(oracle.tokenizer, base.vocab_size, sorted(oracle.ends[module]))
        self._matcher = LLMatcher(tokenizer, of_schema(schema))

    def __call__(self, prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        if output:
            assert self._matcher.consume_token(output[-1])
        bits = numpy.unpackbits(numpy.frombuffer(self._matcher.compute_bitmask(), numpy.uint8), bitorder="little")
        allowed = torch.from_numpy(bits[: len(logits)].astype(bool))
        return logits.masked_fill(~allowed, float("-inf"))


def after_thought(process: ProcessLogits, end: int) -> ProcessLogits:
    """A grammar that holds from the token `end` on, which ends a thought."""

    def processed(prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        if end not in output:
            return logits
        return process(prompt, output[output.index(end) + 1 :], logits)

    return processed


def frequency(amount: float) -> ProcessLogits:
    def process(prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        for token, count in Counter(output).items():
            logits[token] -= amount * count
        return logits

    return process


def presence(amount: float) -> ProcessLogits:
    def process(prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        for token in set(output):
            logits[token] -= amount
        return logits

    return process


def one_step_late(process: ProcessLogits) -> ProcessLogits:
    """With overlap scheduling SGLang prepares a step before it knows the last one's token, hooks or not."""

    def late(prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        return process(prompt, output[:-1], logits)

    return late


def repetition(factor: float) -> ProcessLogits:
    def process(prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        for token in set(output):
            logits[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
        return logits

    return process


def counting_last_prompt_token(process: ProcessLogits) -> ProcessLogits:
    """The mistake that psserve must not make: the prompt's last token taken for an emitted one."""

    def miscounting(prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        return process(prompt, [prompt[-1], *output], logits)

    return miscounting
