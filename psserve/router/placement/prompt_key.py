"""What policies are told of a prompt without tokenizing it: blocks of its text, and about how many tokens it has.

Tokenizing 10,000 tokens takes some 25 ms, cutting their text into blocks 0.1 ms (docs/routing.md has the measurement).
A chat prompt's text is its tools and then its messages, as JSON in one fixed form: a conversation that goes on begins
with the same bytes. Only routing depends on it, so a template that renders it otherwise costs a hit, never an answer.
"""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from psserve.router.body.checks import Body
from psserve.router.policies import Prompt
from psserve.router.policies.base import TOKEN_BYTES, blocks_of, root_of, token_bytes

BLOCK_BYTES = 64
OPENING_BYTES = 1024
MEMORY_TOKENS = 100_000
"""About so many tokens of answered prompts decide how long a token is."""


class PromptKeys(Protocol):
    """Makes the policies' view of prompts."""

    async def prompt(self, body: Body) -> Prompt:
        """The view of the prompt of a checked prefill body."""

    def learn(self, body: Body, prompt: Prompt, tokens: int) -> None:
        """The base read `tokens` tokens for `body`, whose view was `prompt`."""


class TextKeys:
    """Blocks of BLOCK_BYTES bytes, of text or of token ids; tokens of text are estimated from prompts before."""

    def __init__(self) -> None:
        self._bytes, self._tokens = 4_000.0, 1_000.0

    async def prompt(self, body: Body) -> Prompt:
        data = prompt_bytes(body)
        bytes_per_token = TOKEN_BYTES if _is_ids(body) else self._bytes / self._tokens
        return Prompt(
            blocks_of(data, BLOCK_BYTES, namespace_of(body)),
            max(1, round(len(data) / bytes_per_token)),
            BLOCK_BYTES / bytes_per_token,
        )

    def learn(self, body: Body, prompt: Prompt, tokens: int) -> None:
        if _is_ids(body) or tokens < 1:
            return
        self._bytes += prompt.tokens * BLOCK_BYTES / prompt.block_tokens
        self._tokens += tokens
        if self._tokens > MEMORY_TOKENS:
            self._bytes, self._tokens = self._bytes / 2, self._tokens / 2


def prompt_bytes(body: Body) -> bytes:
    """The prompt of a prefill body: two that begin with the same bytes begin with the same tokens, or nearly so."""
    if "messages" in body:
        return _tools(body) + b"".join(map(_json, body["messages"]))
    prompt: str | list[int] = body["prompt"]
    return token_bytes(prompt) if isinstance(prompt, list) else prompt.encode(errors="replace")


def opening_of(body: Body) -> str:
    """What tells a conversation from others and stays as it goes on: its messages through the first of the user.

    Of a completion's prompt the first OPENING_BYTES bytes.
    """
    if "messages" not in body:
        return prompt_bytes({"prompt": body["prompt"][:OPENING_BYTES]})[:OPENING_BYTES].hex()
    messages = body["messages"]
    first = next((index for index, message in enumerate(messages) if message["role"] == "user"), len(messages))
    return b"".join(map(_json, messages[: first + 1])).decode()


def namespace_of(body: Body) -> int:
    """Prompts under different salts share no cache."""
    return root_of(None if body.get(name) is None else str(body[name]) for name in ("cache_salt", "extra_key"))


def _tools(body: Body) -> bytes:
    tools = body.get("tools")
    return _json(tools) if tools and body.get("tool_choice") != "none" else b""


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _is_ids(body: Body) -> bool:
    return isinstance(body.get("prompt"), list)
