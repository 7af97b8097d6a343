"""What a base's chat template can do of thoughts, for the router: what it reads of clients and makes of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from jinja2 import Template, TemplateError

from psserve.contracts.router_config import Thinking
from psserve.fleet.plan.parsers import parsers_of
from psserve.zoo.checkpoints.chat_template import compiled, variables

TOGGLES = ("enable_thinking", "thinking")
SWITCHES: Mapping[str, tuple[Any, ...]] = dict.fromkeys(TOGGLES, (True, False)) | {
    "reasoning_effort": ("none", "low", "high")
}
"""The variables by which clients turn thoughts on or off, or say how much of them they want -> values to try."""
_QUESTION = {"role": "user", "content": "."}
_CALLS = {
    "messages": [
        {"role": "system", "content": "."},
        _QUESTION,
        {"role": "assistant", "content": ".", "reasoning_content": "."},
        _QUESTION,
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": ".", "parameters": {"type": "object"}}}],
}
_CHATS: tuple[Mapping[str, Any], ...] = ({"messages": [_QUESTION]}, _CALLS)
_FAILED = object()
"""What a template makes of a chat that it does not take."""


def thinking_of(template: str | None) -> Thinking | None:
    """What the template can do of thoughts; None: it cannot be understood."""
    if template is None:
        return Thinking(by_default=False)
    try:
        made, read = compiled(template), variables(template)
    except TemplateError:
        return None
    switches = tuple(name for name, values in SWITCHES.items() if name in read and _changes(made, name, values))
    return Thinking(by_default=_by_default(template, made, switches), switches=switches)


def _changes(template: Template, name: str, values: tuple[Any, ...]) -> bool:
    """Whether the values of a switch make a difference, as far as the template takes the chats it is tried with."""
    tried = [[_render(template, chat, **{name: value}) for value in values] for chat in _CHATS]
    return any(len(set(map(str, texts))) > 1 for texts in tried) or all(_FAILED in texts for texts in tried)


def _by_default(template: str, made: Template, switches: tuple[str, ...]) -> bool:
    """Whether there are thoughts if nobody says otherwise: as with a toggle on, or off; else by their marks."""
    for name, chat in itertools.product(filter(switches.__contains__, TOGGLES), _CHATS):
        plain, on, off = (_render(made, chat, **switch) for switch in ({}, {name: True}, {name: False}))
        if on != off and plain in (on, off) and plain is not _FAILED:
            return bool(plain == on)
    return parsers_of(template).reasoning is not None


def _render(template: Template, chat: Mapping[str, Any], **switches: Any) -> Any:
    """The prompt, or `_FAILED`."""
    try:
        return template.render(**chat, **switches, add_generation_prompt=True)
    except (TemplateError, AttributeError, LookupError, TypeError, ValueError):  # what templates raise, each its own
        return _FAILED
