"""Checks on what only `/v1/completions` has, and the prompts in it."""

from __future__ import annotations

from typing import Any

from psserve.contracts.router_config import RouterConfig
from psserve.router.body.fields import MAX_TOP_LOGPROBS, Body, check_bool, check_int, check_token_ids, invalid, missing

Prompt = str | list[int]


def check_completion(body: Body) -> None:
    """Everything but the prompt. Raises RequestError (400)."""
    check_bool(body, "echo")
    check_int(body, "logprobs", 0, MAX_TOP_LOGPROBS)
    if body.get("echo") and body.get("logprobs") is not None:
        message = "log-probabilities of the prompt are not supported: the base's logits are not part of the answer"
        raise invalid("echo", message, "unsupported_parameter")
    if body.get("suffix"):
        raise invalid("suffix", "suffix is not supported", "unsupported_parameter")
    if body.get("best_of", body.get("n", 1)) != body.get("n", 1):
        raise invalid("best_of", "best_of other than n is not supported", "unsupported_parameter")


def prompts_of(body: Body, config: RouterConfig) -> list[Prompt]:
    """The prompts, one or a batch. Raises RequestError (400)."""
    prompt = body.get("prompt")
    if prompt is None:
        raise missing("prompt")
    is_batch = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], (str, list))
    prompts: list[Any] = prompt if is_batch else [prompt]
    if len({type(item) for item in prompts}) > 1:
        raise invalid("prompt", "prompt must hold strings alone or lists of token ids alone", "invalid_type")
    for item in prompts:
        _check_prompt(item, body, config)
    return prompts


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
