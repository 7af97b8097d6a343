"""Fields that turn thoughts on or off, before what the base's chat template can do."""

from __future__ import annotations

from typing import Any

import pytest

from psserve.contracts.router_config import BaseConfig, RouterConfig, Thinking
from psserve.errors import RequestError
from psserve.router.body.fields import check_body

NEVER, ALWAYS = Thinking(by_default=False), Thinking(by_default=True)
TOGGLED = Thinking(by_default=True, switches=("enable_thinking",))
GRADED = Thinking(by_default=True, switches=("reasoning_effort",))


def check(thinking: Thinking | None, fields: dict[str, Any]) -> None:
    base = BaseConfig(name="base", path="", vocab_size=512, context_length=512, thinking=thinking)
    config = RouterConfig(worker_key="x", base=base, modules=(), workers=())
    check_body("chat", {"messages": [{"role": "user", "content": "x"}], **fields}, config)


def kwargs(**switches: Any) -> dict[str, Any]:
    return {"chat_template_kwargs": switches}


@pytest.mark.parametrize(
    ("thinking", "fields", "param"),
    [
        (NEVER, kwargs(enable_thinking=True), "chat_template_kwargs.enable_thinking"),
        (NEVER, kwargs(thinking=True), "chat_template_kwargs.thinking"),
        (NEVER, kwargs(reasoning_effort="low"), "chat_template_kwargs.reasoning_effort"),
        (NEVER, {"reasoning_effort": "high"}, "reasoning_effort"),
        (NEVER, {"reasoning_effort": 0.5}, "reasoning_effort"),
        (NEVER, {"reasoning": {"effort": "low"}}, "reasoning.effort"),
        (NEVER, {"reasoning": {"enabled": True}}, "reasoning.enabled"),
        (ALWAYS, kwargs(enable_thinking=False), "chat_template_kwargs.enable_thinking"),
        (ALWAYS, {"reasoning_effort": "none"}, "reasoning_effort"),
        (GRADED, kwargs(enable_thinking=False), "chat_template_kwargs.enable_thinking"),
    ],
)
def test_what_the_template_cannot_do_is_refused_by_name(thinking: Thinking, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError, match=r"thoughts cannot be turned (on|off): the base's") as caught:
        check(thinking, fields)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("thinking", "fields"),
    [
        (NEVER, kwargs(enable_thinking=False, thinking=False)),
        (NEVER, {"reasoning_effort": "none"}),
        (ALWAYS, kwargs(enable_thinking=True)),
        (ALWAYS, {"reasoning_effort": "low"}),
        (TOGGLED, kwargs(enable_thinking=True)),
        (TOGGLED, kwargs(thinking=False)),
        (TOGGLED, {"reasoning_effort": "none"}),
        (GRADED, {"reasoning_effort": "none"}),
        (GRADED, {"reasoning": {"effort": "high", "summary": "auto"}}),
        (None, kwargs(enable_thinking=True)),
        (None, {"reasoning_effort": "high"}),
    ],
)
def test_what_it_does_and_what_is_so_anyway_passes(thinking: Thinking | None, fields: dict[str, Any]) -> None:
    check(thinking, fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        (kwargs(reasoning_effort="huge"), "chat_template_kwargs.reasoning_effort"),
        ({"reasoning": {"effort": 2}}, "reasoning.effort"),
    ],
)
def test_an_effort_is_a_word_or_a_small_number(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError, match="must be one of none") as caught:
        check(GRADED, fields)
    assert caught.value.param == param
