"""A last message of the assistant's stays the assistant's, with its calls of tools.

SGLang 0.5.18 would show the model its text as the user's words, and drop its calls. One that is to be continued
(`continue_final_message`) it takes as the beginning of the answer; that stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psserve.engine.handover.sglang.http_process import ChatRequest
from psserve.engine.hooks import Hook, Kind

Split = tuple[list[dict[str, Any]], str | None]
"""Messages to render, and what follows them unrendered."""


def _keep_role(
    original: Callable[..., Split], serving: object, messages: list[dict[str, Any]], request: ChatRequest
) -> Split:
    """AROUND `OpenAIServingChat._handle_last_assistant_message`."""
    return original(serving, messages, request) if request.continue_final_message else (messages, None)


def hooks() -> tuple[Hook, ...]:
    """The hook that servers of both roles need, for the same prompt."""
    target = "sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat._handle_last_assistant_message"
    return (Hook(target, Kind.AROUND, _keep_role),)
