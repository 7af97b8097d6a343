"""Checks of the fields that only completions have, and the prompts in a body."""

from __future__ import annotations

from typing import Any

from psserve.contracts.router_config import RouterConfig
from psserve.router.body.checks import Body, Check, check_bool, check_token_ids, invalid
from psserve.router.body.given import check_fields_with_answers, has_answers

RawPrompt = str | list[int]
"""Text or token ids."""


def prompts_of(body: Body) -> list[RawPrompt]:
    """The prompts of a checked body, one or a batch."""
    return _as_batch(body["prompt"])


def _as_batch(prompt: Any) -> list[Any]:
    is_batch = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], (str, list))
    return prompt if is_batch else [prompt]


def _check_prompts(body: Body, name: str, config: RouterConfig) -> None:
    """`max_tokens` was checked before."""
    prompts = _as_batch(body[name])
    if len({type(item) for item in prompts}) > 1:
        raise invalid(name, f"{name} must hold strings alone or lists of token ids alone", "invalid_type")
    for item in prompts:
        _check_prompt(item, body, config)


def _check_prompt(prompt: Any, body: Body, config: RouterConfig) -> None:
    if isinstance(prompt, str):
        if not prompt:
            raise invalid("prompt", "prompt must not be empty")
        return
    if not isinstance(prompt, list):
        message = "prompt must be a string, a list of strings, a list of token ids, or a list of such lists"
        raise invalid("prompt", message, "invalid_type")
    check_token_ids(prompt, "prompt", config.base.vocab_size)
    check_length(len(prompt), "prompt", body.get("max_tokens"), config)


def check_length(tokens: int, param: str, max_tokens: int | None, config: RouterConfig) -> None:
    """Raises RequestError (400) about `param` when a prompt of `tokens` tokens cannot be served."""
    limit = config.base.context_length
    if tokens + (max_tokens or 1) > limit:
        asked = f" and {max_tokens} to generate" if max_tokens else ""
        message = f"the prompt has {tokens} tokens{asked}, the context length is {limit} tokens"
        raise invalid(param, message, "context_length_exceeded")
    if config.kv_pool_tokens is not None and tokens > config.kv_pool_tokens:
        message = f"the prompt has {tokens} tokens, the servers' memory holds {config.kv_pool_tokens}"
        raise invalid(param, message, "context_length_exceeded")


def _check_echo(body: Body, name: str, config: RouterConfig) -> None:
    check_bool(body, name)
    if has_answers(body):
        check_fields_with_answers(body)


def _check_suffix(body: Body, name: str, config: RouterConfig) -> None:
    if body[name]:
        raise invalid(name, f"{name} is not supported", "unsupported_parameter")


def _check_best_of(body: Body, name: str, config: RouterConfig) -> None:
    if body[name] != body.get("n", 1):
        raise invalid(name, f"{name} other than n is not supported", "unsupported_parameter")


def _refuse_completion_tokens(body: Body, name: str, config: RouterConfig) -> None:
    """OpenAI's endpoint does not know it; SGLang's passes it over and stops at its default of 16 tokens."""
    raise invalid(name, f"{name} is not supported for completions: use max_tokens", "unsupported_parameter")


def _check_texts(body: Body, name: str, config: RouterConfig) -> None:
    prompt, limit = body[name], config.limits.choices
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if not all(isinstance(text, str) for text in prompts):
        raise invalid(name, f"{name} must be a string or a list of strings", "invalid_type")
    if len(prompts) > limit:
        raise invalid(name, f"{name} must be at most {limit} strings")


PROMPTS = Check("a string, token ids, or several of either; prompts times n: {choices} at most", _check_prompts)
ECHO = Check("true or false; with logprobs: those of [an answer in the prompt](#given-answers)", _check_echo)
NO_COMPLETION_TOKENS = Check("refused: use max_tokens", _refuse_completion_tokens)
NO_SUFFIX = Check("refused, unless empty", _check_suffix)
BEST_OF = Check("the same as n", _check_best_of)
TOKENIZE_TEXTS = Check("a string, or at most {choices}", _check_texts)
