"""Which texts are too long for any server, before one sees them: SGLang tokenizes in the loop that serves everybody.

Texts of up to a few contexts' characters go on as they are, for tokenizing them takes a server milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from psserve.contracts.router_config import BaseConfig
from psserve.errors import RequestError
from psserve.router.body.checks import Body, invalid

FILE = "tokenizer.json"
SHORT = 2
"""Characters per token of context up to which a text is no burden."""
PIECE = 16_384
"""Characters that are tokenized at a time, until it is clear that a text is too long."""
SLACK = 8
"""Tokens that a cut between pieces may add, at most."""
COMPOSED = 4
"""Characters that normalization may make one of."""


class TextLengths:
    """Measures the texts of checked bodies against the context of the base, as its tokenizer has them."""

    def __init__(self, base: BaseConfig) -> None:
        self._context = base.context_length
        self._file = Path(base.path) / FILE
        self._longest = longest_token(self._file)

    async def check(self, body: Body, *, at_once: bool = False) -> None:
        """Raises RequestError (400) when a text of `body` has more tokens than the context length, and it is not close.

        `at_once`: a server gets all the texts of a batch together.
        """
        if self._longest is None:
            return
        if "messages" in body:
            await self._check("messages", list(_texts_of_chat(body)))
        elif isinstance(prompt := body.get("prompt"), str):
            await self._check("prompt", [prompt])
        elif isinstance(prompt, list):
            texts = [text for text in prompt if isinstance(text, str)]
            for group in [texts] if at_once else [[text] for text in texts]:
                await self._check("prompt", group)

    async def _check(self, param: str, texts: list[str]) -> None:
        assert self._longest is not None, "check() returns before"
        size = sum(map(len, texts))
        if size > self._context * self._longest:
            raise self._too_long(param, f"has {size} characters")
        if size > self._context * SHORT and await asyncio.to_thread(self._is_too_long, texts):
            raise self._too_long(param, f"of {size} characters has more tokens than fit")

    def _is_too_long(self, texts: list[str]) -> bool:
        """Tokenizing releases Python's lock; it ends with the first piece that is too much."""
        tokens = 0
        for text in texts:
            for start in range(0, len(text), PIECE):
                tokens += len(self._tokenizer.encode(text[start : start + PIECE], add_special_tokens=False).ids) - SLACK
                if tokens > self._context:
                    return True
        return False

    def _too_long(self, param: str, what: str) -> RequestError:
        message = f"the prompt {what}; the context length is {self._context} tokens: send less"
        return invalid(param, message, "context_length_exceeded")

    @cached_property
    def _tokenizer(self) -> Any:
        # Only here: most routers never need it.
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self._file))


def longest_token(file: Path) -> int | None:
    """Characters of a text that one token can stand for, at most. None: not known, or without a limit."""
    try:
        document = orjson.loads(file.read_bytes())
        model, normalizer = document["model"], document.get("normalizer")
        is_bytes = "ByteLevel" in str(document.get("pre_tokenizer")) + str(document.get("decoder"))
        if not is_bytes and not model.get("byte_fallback"):
            return None  # all that is unknown may be one token
        added = [token["content"] for token in document.get("added_tokens", ())]
        longest = max(map(len, (*model["vocab"], *added)))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError):
        return None  # a tokenizer of another form: the servers measure
    return longest * (COMPOSED if normalizer is not None else 1)


def _texts_of_chat(body: Body) -> Iterator[str]:
    """What a template shows of a chat, or most of it. Reasoning of earlier answers is what templates leave out."""
    for message in body["messages"]:
        content = message.get("content") or ""
        parts = [content] if isinstance(content, str) else [part["text"] for part in content]
        for part in parts:
            yield part.rpartition("</think>")[2] if message["role"] == "assistant" else part
        for call in message.get("tool_calls") or ():
            if isinstance(arguments := call["function"].get("arguments"), str):
                yield arguments
    if body.get("tools") and body.get("tool_choice") != "none":
        yield orjson.dumps(body["tools"]).decode()
