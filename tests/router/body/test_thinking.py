"""Fields that turn thoughts on or off, before what the base's chat template can do."""

from __future__ import annotations

from typing import Any

import pytest

from psserve.contracts.router_config import BaseConfig, RouterConfig, Thinking
from psserve.errors import RequestError
from psserve.router.body.fields import check_body, decode_fields, prefill_fields
from psserve.router.body.thinking import toggled

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


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"reasoning": "high"}, "reasoning", "reasoning must be an object"),
        ({"reasoning": True}, "reasoning", "reasoning must be an object"),
        ({"reasoning": {"enabled": "false"}}, "reasoning.enabled", "reasoning.enabled must be true or false"),
        ({"reasoning": {"enable": 0}}, "reasoning.enable", "reasoning.enable must be true or false"),
        (kwargs(thinking="false"), "chat_template_kwargs.thinking", "chat_template_kwargs.thinking must be true or"),
    ],
)
def test_what_is_no_switch_is_refused_as_that(fields: dict[str, Any], param: str, message: str) -> None:
    for thinking in (NEVER, ALWAYS, TOGGLED, None):
        with pytest.raises(RequestError, match=message) as caught:
            check(thinking, fields)
        assert (caught.value.param, caught.value.code) == (param, "invalid_value")


@pytest.mark.parametrize(
    ("thinking", "fields", "param"),
    [
        (ALWAYS, {"reasoning": {"enabled": False}}, "reasoning.enabled"),
        (GRADED, {"reasoning": {"enable": False}}, "reasoning.enable"),
        (ALWAYS, kwargs(reasoning_effort="none"), "chat_template_kwargs.reasoning_effort"),
    ],
)
def test_thoughts_that_are_always_there_are_not_turned_off(
    thinking: Thinking, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError, match="thoughts cannot be turned off") as caught:
        check(thinking, fields)
    assert caught.value.param == param


BOTH_ON, BOTH_OFF = ({"enable_thinking": on, "thinking": on} for on in (True, False))


@pytest.mark.parametrize(
    ("fields", "switches"),
    [
        ({"reasoning": {"enabled": False}}, BOTH_OFF),
        ({"reasoning": {"enabled": None, "enable": True}}, BOTH_ON),
        ({"reasoning": {"enabled": False, "effort": "low"}}, BOTH_ON),
        ({"reasoning_effort": "none"}, BOTH_OFF),
        ({"reasoning_effort": "none", "reasoning": {"effort": "high"}}, BOTH_ON),
        (kwargs(reasoning_effort="none"), BOTH_OFF | {"reasoning_effort": "none"}),
        (kwargs(thinking=False), BOTH_OFF),
        (kwargs(thinking=False, enable_thinking=True), {"enable_thinking": True, "thinking": False}),
        ({"reasoning_effort": "none"} | kwargs(enable_thinking=True), BOTH_ON),
    ],
)
def test_both_servers_are_told_in_the_templates_words(fields: dict[str, Any], switches: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], **fields}
    assert prefill_fields("chat", body)["chat_template_kwargs"] == switches
    assert decode_fields("chat", body)["chat_template_kwargs"] == switches


@pytest.mark.parametrize("fields", [{}, {"reasoning": {}}, {"reasoning": None, "chat_template_kwargs": None}])
def test_nothing_is_added_where_nobody_asks(fields: dict[str, Any]) -> None:
    assert toggled(fields) == {}
