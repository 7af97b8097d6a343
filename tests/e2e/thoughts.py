"""Chats whose answers hold a thought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psserve.training.reference import ReferenceAnswer
from tests.e2e.oracle import Oracle, readable

THINKING: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}}


@dataclass(frozen=True)
class Thought:
    """A chat whose answer ends its thought, and goes on."""

    messages: list[dict[str, Any]]
    prompt: list[int]
    expected: ReferenceAnswer
    end: int
    """Place of the closing mark in the answer."""
    text: tuple[str, str]
    """The thought, and what follows: the part that `readable` leaves."""


def first_thought(oracle: Oracle, module: str) -> Thought:
    """A module's first one, of a thought and an answer that are more than a few tokens each."""
    tokenizer = oracle.tokenizer
    (closing,) = tokenizer.encode("</think>")
    for number in range(400):
        messages = [{"role": "user", "content": f"What is {number} and {number * 7}?"}]
        prompt = oracle.chat_prompt(messages, enable_thinking=True)
        expected = oracle.answer(module, prompt, 40)
        if closing in expected.tokens[3:32] and "<tool_call>" not in tokenizer.decode(expected.tokens):
            end = expected.tokens.index(closing)
            parts = (expected.tokens[:end], expected.tokens[end + 1 :])
            text = tuple(readable(tokenizer.decode(part, skip_special_tokens=True)) for part in parts)
            if all(part.strip() for part in text):
                return Thought(messages, prompt, expected, end, text)
    raise AssertionError("no answer closes its thought")
