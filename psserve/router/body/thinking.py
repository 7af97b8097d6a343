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
    """Whether the template thinks, or does not, as a client wants it. SGLang takes one toggle for the other."""
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
        if key not in TEMPLATE_KWARGS or not isinstance(value, (bool, str, int, float)):
            raise invalid(name, f"{name} may hold {', '.join(TEMPLATE_KWARGS)} alone", "unsupported_parameter")
        if key in TOGGLES:
            _check_turned(bool(value), f"{name}.{key}", config.base.thinking)
        else:
            _check_one_effort(value, f"{name}.{key}", config.base.thinking)


def _check_reasoning(body: Body, name: str, config: RouterConfig) -> None:
    """SGLang's object of the two."""
    reasoning = body[name]
    if not isinstance(reasoning, dict):
        return
    if reasoning.get("enabled", reasoning.get("enable")):
        _check_turned(True, f"{name}.enabled", config.base.thinking)
    if (effort := reasoning.get("effort", reasoning.get("reasoning_effort"))) is not None:
        _check_one_effort(effort, f"{name}.effort", config.base.thinking)


EFFORT = Check(
    f"one of {', '.join(EFFORTS)}, or a number from 0 to {MAX_EFFORT}; what the base's template can do", _check_effort
)
TEMPLATE_SWITCHES = Check(
    f"{', '.join(TEMPLATE_KWARGS)} alone; what the base's template can do", _check_template_kwargs
)
REASONING = Check("enabled, effort; what the base's template can do", _check_reasoning)
