"""What policies are told of a prompt where KV events are followed: its pages of token ids, as servers have them.

Prompts are rendered and tokenized as SGLang does it for text (serving_chat.py); where the two differ, a hit is missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from psserve.contracts.tools import call_as_served, tool_as_served
from psserve.errors import UsageError
from psserve.router.body.checks import Body
from psserve.router.placement.prompt_key import TextKeys, namespace_of
from psserve.router.policies import Prompt
from psserve.router.policies.base import TOKEN_BYTES, blocks_of, token_bytes
from psserve.rule import base_part
from psserve.zoo.checkpoints.chat_template import compiled
from psserve.zoo.checkpoints.tokenizer import read_chat_template


class TokenKeys:
    """Blocks are pages of `page_size` tokens of x[:-1], the part of a prompt that the base computes."""

    def __init__(self, base: Path, page_size: int, check_length: Callable[[int, str], None]) -> None:
        """`base`: its checkpoint; `check_length` is called with a text's tokens and its field's name.

        Raises UsageError when the checkpoint has no tokenizer.json.
        """
        self._page_size = page_size
        self._check_length = check_length
        self._text = TextKeys()
        try:
            self._tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception for files that it cannot read
            message = f"KV events need the base's tokenizer.json ({base}: {error}): leave kv_events out"
            raise UsageError(message) from error
        self._template = ChatTemplate(read_chat_template(base) or "")

    async def prompt(self, body: Body) -> Prompt:
        """Tokenizing releases Python's lock and takes milliseconds: a thread does it.

        Raises RequestError (400) when the prompt is too long to be served: no server needs to see it.
        """
        ids = body.get("prompt")
        try:
            tokens = ids if isinstance(ids, list) else await asyncio.to_thread(self.tokens, body)
        except (TemplateError, AttributeError, LookupError, TypeError, ValueError):
            # The server will refuse it, or knows better. Its length alone is an estimate to balance loads by.
            return Prompt((), (await self._text.prompt(body)).tokens, self._page_size)
        self._check_length(len(tokens), "messages" if "messages" in body else "prompt")
        computed = base_part(tokens)
        # Events do not tell namespaces apart: salted prompts are known to be nowhere.
        blocks = () if namespace_of(body) else blocks_of(token_bytes(computed), self._page_size * TOKEN_BYTES)
        return Prompt(blocks, max(1, len(computed)), self._page_size)

    def learn(self, body: Body, prompt: Prompt, tokens: int) -> None:
        """Lengths are exact."""

    def tokens(self, body: Body) -> list[int]:
        """Token ids of a prefill body's text."""
        if "messages" in body:
            return list(self._tokenizer.encode(self._template.render(body), add_special_tokens=False).ids)
        return list(self._tokenizer.encode(body["prompt"]).ids)


class ChatTemplate:
    """A Hugging Face chat template, rendered in a sandbox without Transformers."""

    def __init__(self, source: str) -> None:
        self._template = compiled(source)

    def render(self, body: Body) -> str:
        """The text of a chat prefill body; raises what templates raise where it does not fit."""
        messages = [_message(message) for message in body["messages"]]
        tail = ""
        if body.get("continue_final_message") and messages[-1]["role"] == "assistant":
            tail = messages.pop()["content"]
        switches = {"reasoning_effort": body["reasoning_effort"]} if "reasoning_effort" in body else {}
        switches |= body.get("chat_template_kwargs", {})
        tools = None if body.get("tool_choice") == "none" else [*map(tool_as_served, body.get("tools", []))] or None
        return self._template.render(messages=messages, tools=tools, add_generation_prompt=True, **switches) + tail


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """A message as templates see it: no nulls, content as one string, arguments of earlier calls as objects."""
    shown = {name: value for name, value in message.items() if value is not None}
    content = shown.get("content", "")
    shown["content"] = content if isinstance(content, str) else " ".join(part["text"] for part in content)
    if "tool_calls" in shown:
        shown["tool_calls"] = [*map(call_as_served, shown["tool_calls"])]
    return shown
