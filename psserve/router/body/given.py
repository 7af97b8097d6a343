"""Prompts with answers in them, whose log-probabilities are wanted: completions with `echo` and `logprobs`."""

from __future__ import annotations

from typing import Any, NamedTuple

from psserve.contracts.given import GIVEN, OPENING
from psserve.router.body.checks import Body, invalid

COMPLETION_OUTPUT_TOKENS = 16
"""What SGLang generates for a completion that names no limit, as OpenAI does."""
NEUTRAL: dict[str, Any] = {
    "stream": False,
    "stop": [],
    "min_tokens": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "regex": None,
    "ebnf": None,
    "json_schema": None,
    "response_format": {"type": "text"},
}
"""Fields that would hold the answer to something else than the module, and the value that asks for nothing."""


class GivenAnswer(NamedTuple):
    """An answer that came with its prompt."""

    tokens: list[int]
    opening: int
    """Tokens of the generation prompt before it."""


def has_answers(body: Body) -> bool:
    """Whether the prompts of a completion's body have answers in them, of which it wants the log-probabilities."""
    return body.get("echo") is True and body.get("logprobs") is not None


def check_fields_with_answers(body: Body) -> None:
    """Raises RequestError (400) for a field that cannot be kept while an answer is read."""
    for name, neutral in NEUTRAL.items():
        if name in body and body[name] != neutral:
            message = f"{name} cannot be used with echo and logprobs, which tell how the module itself takes an answer"
            raise invalid(name, message, "unsupported_parameter")


def with_answer(decode: Body, answer: GivenAnswer) -> Body:
    """A decode body whose prompt has this answer given to it. What is generated comes after the answer."""
    further = decode.get("max_tokens", COMPLETION_OUTPUT_TOKENS)
    kept = {name: value for name, value in decode.items() if name != "echo"}
    given = {GIVEN: answer.tokens, OPENING: answer.opening}
    return kept | {"max_tokens": len(answer.tokens) + further, "custom_params": given}
