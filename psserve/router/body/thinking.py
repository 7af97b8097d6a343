"""Checks of the fields that turn a model's thoughts on or off: what the base's chat template cannot do is refused.

A template that does not look at a field would pass over it, and the client would not know.
"""

from __future__ import annotations

from typing import Any

from psserve.contracts.router_config import RouterConfig, Thinking
from psserve.router.body.checks import Body, Check, invalid

TOGGLES = ("enable_thinking", "thinking")
TEMPLATE_KWARGS = (*TOGGLES, "reasoning_effort")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
EFFORT_KEYS, ENABLED = ("effort", "reasoning_effort"), ("enabled", "enable")
"""Of `reasoning`."""
MAX_EFFORT = 0.99


def _check_effort(body: Body, name: str, config: RouterConfig) -> None:
    _check_one_effort(body[name], name, config.base.thinking)


def _check_one_effort(effort: Any, where: str, thinking: Thinking | None) -> None:
    """A word, or SGLang's finer number."""
    if not (isinstance(effort, str) and effort in EFFORTS) and (
        type(effort) not in (int, float) or not 0 <= effort <= MAX_EFFORT
    ):
        raise invalid(where, f"{where} must be one of {', '.join(EFFORTS)}, or 0 to {MAX_EFFORT}")
    if thinking is not None and "reasoning_effort" not in thinking.switches:
        _check_turned(effort != "none", where, thinking)


def _check_turned(on: bool, where: str, thinking: Thinking | None) -> None:
    """Whether the template thinks, or does not, as a client wants it. Either toggle will do (`toggled`)."""
    if thinking is None or thinking.by_default is on or set(TOGGLES) & set(thinking.switches):
        return
    what = "thoughts cannot be turned on: the base's chat template has none"
    if not on:
        what = "thoughts cannot be turned off: the base's chat template always has them"
    raise invalid(where, f"{where}: {what}", "unsupported_parameter")


def _check_template_kwargs(body: Body, name: str, config: RouterConfig) -> None:
    """Only the switches of reasoning models: other variables could replace the template or how it is applied."""
    kwargs = body[name]
    if not isinstance(kwargs, dict):
        raise invalid(name, f"{name} must be an object")
    for key, value in kwargs.items():
        if key not in TEMPLATE_KWARGS:
            raise invalid(name, f"{name} may hold {', '.join(TEMPLATE_KWARGS)} alone", "unsupported_parameter")
        if key in TOGGLES:
            _check_toggle(value, f"{name}.{key}", config.base.thinking)
        else:
            _check_one_effort(value, f"{name}.{key}", config.base.thinking)


def _check_reasoning(body: Body, name: str, config: RouterConfig) -> None:
    """SGLang's object of the two, each by two names."""
    reasoning = body[name]
    if not isinstance(reasoning, dict):
        raise invalid(name, f"{name} must be an object")
    for key in ENABLED:
        if (enabled := reasoning.get(key)) is not None:
            _check_toggle(enabled, f"{name}.{key}", config.base.thinking)
    for key in EFFORT_KEYS:
        if (effort := reasoning.get(key)) is not None:
            _check_one_effort(effort, f"{name}.{key}", config.base.thinking)


def _check_toggle(value: Any, where: str, thinking: Thinking | None) -> None:
    """True or false: of all else, each template has its own idea."""
    if type(value) is not bool:
        raise invalid(where, f"{where} must be true or false")
    _check_turned(value, where, thinking)


def toggled(body: Body) -> Body:
    """The template's variables of a checked chat, both toggles among them if one, or anything else, says what they are.

    SGLang sets them by `reasoning_effort` alone, and takes `reasoning.enabled` for nothing where it is false.
    """
    kwargs = body.get("chat_template_kwargs") or {}
    on = _asked(kwargs, body)
    return {} if on is None else {"chat_template_kwargs": dict.fromkeys(TOGGLES, on) | kwargs}


def _asked(kwargs: Body, body: Body) -> bool | None:
    """Whether a request turns thoughts on or off, by what goes before all else; None: it says nothing."""
    reasoning = body.get("reasoning") or {}
    effort = (kwargs.get("reasoning_effort"), *map(reasoning.get, EFFORT_KEYS), body.get("reasoning_effort"))
    said = (
        *map(kwargs.get, TOGGLES),
        *(each != "none" for each in effort if each is not None),
        *map(reasoning.get, ENABLED),
    )
    return next((each for each in said if each is not None), None)


EFFORT = Check(
    f"one of {', '.join(EFFORTS)}, or a number from 0 to {MAX_EFFORT}; what the base's template can do", _check_effort
)
TEMPLATE_SWITCHES = Check(
    f"{', '.join(TEMPLATE_KWARGS)} alone; what the base's template can do", _check_template_kwargs
)
REASONING = Check("enabled, effort; what the base's template can do", _check_reasoning)
