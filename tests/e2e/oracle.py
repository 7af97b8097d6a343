"""What a fleet must answer: the Transformers reference of a zoo, and the comparison with what was served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pytest
import torch

from psserve.training.answers import end_tokens
from psserve.training.reference import (
    ProcessLogits,
    ReferenceAnswer,
    in_format,
    load_model,
    load_pair,
    reference_answer,
)
from psserve.zoo import Zoo

LOGPROB_TOLERANCE = 1e-4
SERVED = torch.float32
"""What fleets compute in on a CPU, whatever the zoo's files are stored in. The demo zoo's are float16, in which a
log-probability differs by up to 8e-4."""


class Oracle:
    """A zoo's models in this process, as servers compute with them."""

    def __init__(self, zoo: Zoo) -> None:
        torch.set_num_threads(1)  # models this small are slower on several
        self.zoo = zoo
        self.base = in_format(load_model(zoo.base.path), SERVED)
        self.modules = {module.name: in_format(self.load(module.name), SERVED) for module in zoo.modules()}
        self.ends = {name: frozenset(end_tokens(module)) for name, module in self.modules.items()}
        self.checked, self.difference = 0, 0.0  # answers compared, and the largest difference of a log-probability
        self._known: dict[tuple[str, tuple[int, ...], int], ReferenceAnswer] = {}

    def load(self, module: str) -> Any:
        """The model that a module is."""
        return load_pair(self.zoo, module).module

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.zoo.base.path)

    def answer(self, module: str, prompt: Sequence[int], max_tokens: int) -> ReferenceAnswer:
        """The greedy answer up to and with the token that ends the module's answers."""
        key = (module, tuple(prompt), max_tokens)
        if key not in self._known:
            self._known[key] = self.processed_answer(module, prompt, max_tokens, None)
        return self._known[key]

    def processed_answer(
        self, module: str, prompt: Sequence[int], max_tokens: int, process_logits: ProcessLogits | None
    ) -> ReferenceAnswer:
        """Like `answer`, with penalties or a grammar."""
        return reference_answer(
            self.base,
            self.modules[module],
            prompt,
            max_tokens,
            process_logits=process_logits,
            stop_ids=self.ends[module],
        )

    def chat_prompt(self, messages: list[dict[str, Any]], **switches: Any) -> list[int]:
        """The prompt that the chat endpoint makes of messages."""
        ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, **switches)
        return list(ids["input_ids"] if isinstance(ids, Mapping) else ids)

    def check_tokens(self, expected: ReferenceAnswer, tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        """Fail unless the very tokens were served, with the reference's log-probabilities."""
        assert list(tokens) == expected.tokens
        assert list(logprobs) == pytest.approx(expected.logprobs, abs=LOGPROB_TOLERANCE)
        self.checked += 1
        differences = (abs(one - other) for one, other in zip(logprobs, expected.logprobs, strict=True))
        self.difference = max(self.difference, *differences, 0.0)

    def check_choice(self, expected: ReferenceAnswer, choice: Mapping[str, Any]) -> None:
        """The same for a choice of `/v1/completions` with `logprobs` and `return_token_ids`, and for its text."""
        served = choice["logprobs"]
        self.check_tokens(expected, choice["token_ids"], served["token_logprobs"])
        assert served["tokens"] == [self.tokenizer.decode([token]) for token in expected.tokens]
        assert readable(choice["text"]) == self.text(expected)

    def reads_as_itself(self, expected: ReferenceAnswer) -> bool:
        """Whether no token of an answer is a part of a character: those read as each other."""
        return all("\ufffd" not in self.tokenizer.decode([token]) for token in expected.tokens)

    def text(self, expected: ReferenceAnswer) -> str:
        """The answer as a client sees it: without the end-of-turn token, and only what `readable` leaves."""
        return readable(self.tokenizer.decode(expected.tokens, skip_special_tokens=True))


def readable(text: str) -> str:
    """The ASCII part of a text. Random models emit broken UTF-8, which reads differently beside other broken bytes."""
    return "".join(character for character in text if character.isascii())
