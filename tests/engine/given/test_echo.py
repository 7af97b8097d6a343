"""The prompt before a given answer, in SGLang's own answers to completions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from psserve.contracts.given import GIVEN, OPENING
from psserve.engine.fixes import logprobs
from psserve.engine.given import echo
from tests.engine.fixes.test_logprobs import of_bytes
from tests.engine.hooked import hooked

TOKENIZER = of_bytes()
TOKENIZER.add_special_tokens({"eos_token": "<|end|>"})
PROMPT, ANSWER = "aé<|end|>", "bc"
GIVEN_AFTER_ONE = {GIVEN: [1, 2], OPENING: 1}
"""The generation prompt is the special token."""


@pytest.fixture(autouse=True, scope="module")
def _hooked() -> Any:
    with hooked([*logprobs.hooks(), *echo.hooks()]):
        yield


def answered(top: int, **fields: Any) -> Any:
    """SGLang's choice for the prompt and its answer, of which it knows log-probabilities."""
    from sglang.srt.entrypoints.openai.protocol import CompletionRequest, LogProbs

    request = CompletionRequest(model="m", prompt=TOKENIZER.encode(PROMPT), logprobs=top, **fields)
    tops = [{"b": -1.0}, {"c": -2.0}] if top else []
    said = LogProbs(tokens=["b", "c"], token_logprobs=[-1.0, -2.0], text_offset=[0, 1], top_logprobs=tops)
    answer = SimpleNamespace(choices=[SimpleNamespace(text=ANSWER, logprobs=said)])
    manager = SimpleNamespace(tokenizer=TOKENIZER)
    from sglang.srt.managers.tokenizer_manager import TokenizerManager

    manager.detokenize_logprob_tokens = TokenizerManager.detokenize_logprob_tokens.__get__(manager)
    echo._with_prompt(answer, SimpleNamespace(tokenizer_manager=manager), request, [], 0)
    return answer.choices[0]


def test_the_prompts_tokens_stand_before_and_the_templates_are_certain() -> None:
    choice = answered(1, custom_params=GIVEN_AFTER_ONE)
    assert choice.text == "aébc"
    said = choice.logprobs
    assert said.tokens == ["a", "\ufffd", "\ufffd", "<|end|>", "b", "c"]
    assert said.token_logprobs == [None, None, None, 0.0, -1.0, -2.0]
    assert said.text_offset == [0, 1, 1, 2, 2, 3]
    assert said.top_logprobs == [None, None, None, {"<|end|>": 0.0}, {"b": -1.0}, {"c": -2.0}]


def test_special_tokens_are_shown_to_whom_wants_them() -> None:
    choice = answered(1, custom_params=GIVEN_AFTER_ONE, skip_special_tokens=False)
    assert choice.text == "aé<|end|>bc"
    assert choice.logprobs.text_offset == [0, 1, 1, 2, 9, 10]


def test_nobody_asked_for_other_tokens() -> None:
    assert answered(0, custom_params=GIVEN_AFTER_ONE).logprobs.top_logprobs == []


def test_other_completions_are_as_ever() -> None:
    for fields in ({}, {"custom_params": {"else": 1}}):
        choice = answered(1, **fields)
        assert (choice.text, choice.logprobs.text_offset) == (ANSWER, [0, 1])
