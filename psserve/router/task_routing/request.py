"""What of a request is classified: the last user message, or the end of a completion's prompt."""

from __future__ import annotations

from typing import Any

from psserve.router.checks import Body
from psserve.router.task_routing.classifier import TaskRequest

MAX_TEXT = 1200
"""Characters that are looked at. Of a longer message the beginning and the end, where people say what they want."""


def task_request(body: Body) -> TaskRequest:
    """The request in `body`, a checked body of either endpoint. A prompt of token ids has no text."""
    if "messages" not in body:
        return TaskRequest(_prompt_end(body.get("prompt")))
    users = [message for message in body["messages"] if message["role"] == "user"]
    text = _text(users[-1]["content"]) if users else ""
    return TaskRequest(shortened(text), bool(body.get("tools")) and body.get("tool_choice") != "none")


def _prompt_end(prompt: Any) -> str:
    """Of a batch the first prompt: a request goes to one module."""
    if isinstance(prompt, list):
        prompt = prompt[0]
    return prompt[-MAX_TEXT:] if isinstance(prompt, str) else ""


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def shortened(text: str) -> str:
    """What is classified of a message."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[: MAX_TEXT // 2]}\n{text[-MAX_TEXT // 2 :]}"
