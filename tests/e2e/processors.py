"""What SGLang does to logits before it picks a token, done to the reference's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from psserve.training.reference import ProcessLogits
from tests.e2e.oracle import Oracle


class JsonMask:
    """The grammar's mask on the reference's logits, by the library that SGLang uses."""

    def __init__(self, oracle: Oracle, schema: dict[str, Any]) -> None:
        import xgrammar

        self._xgrammar = xgrammar
        size = oracle.zoo.base.vocab_size
        info = xgrammar.TokenizerInfo.from_huggingface(
            oracle.tokenizer, vocab_size=size, stop_token_ids=list(oracle.zoo.base.eos_token_ids)
        )
        compiled = xgrammar.GrammarCompiler(info).compile_json_schema(json.dumps(schema))
        self._matcher = xgrammar.GrammarMatcher(compiled)
        self._mask = xgrammar.allocate_token_bitmask(1, size)

    def __call__(self, prompt: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        if output:
            assert self._matcher.accept_token(output[-1])
        self._matcher.fill_next_token_bitmask(self._mask)
        allowed = torch.tensor([bool(self._mask[0, token // 32] >> (token % 32) & 1) for token in range(len(logits))])
        return logits.masked_fill(~allowed, float("-inf"))


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
