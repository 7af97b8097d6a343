"""What the router is told of a chat template's thoughts."""

from __future__ import annotations

import pytest

from psserve.contracts.router_config import Thinking
from psserve.fleet.plan.thinking import thinking_of
from tests.chat_templates import CHATML, DEEPSEEK_R1, GPT_OSS, QWEN_3


@pytest.mark.parametrize(
    ("template", "by_default", "switches"),
    [
        (QWEN_3, True, ("enable_thinking",)),
        (GPT_OSS, True, ("reasoning_effort",)),
        (DEEPSEEK_R1, True, ()),
        (CHATML, False, ()),
        (None, False, ()),
    ],
)
def test_the_router_learns_what_the_template_can_do(
    template: str | None, by_default: bool, switches: tuple[str, ...]
) -> None:
    assert thinking_of(template) == Thinking(by_default=by_default, switches=switches)


@pytest.mark.parametrize(
    ("more", "switches"),
    [
        ("{# enable_thinking #}{{ 'say enable_thinking' }}", ()),  # prose
        ("{% set enable_thinking = true %}{% if enable_thinking %}<think>{% endif %}", ()),  # its own
        ("{% if enable_thinking is defined %}{% endif %}", ()),  # read, and makes no difference
        ("{% set on = thinking | default(false) %}{% if on %}<think>{% endif %}", ("thinking",)),
        ("{% macro end() %}{% if not thinking %}</think>{% endif %}{% endmacro %}{{ end() }}", ("thinking",)),
        ("{% if tools and enable_thinking %}Think.{% endif %}", ("enable_thinking",)),
        ("{{ raise_exception('no') }}{% if thinking %}x{% endif %}", ("thinking",)),  # takes none of the chats
        ("{% generation %}{{ reasoning_effort }}{% endgeneration %}", ("reasoning_effort",)),
    ],
)
def test_a_switch_is_what_the_template_reads_and_what_makes_a_difference(more: str, switches: tuple[str, ...]) -> None:
    thinking = thinking_of(CHATML + more)
    assert thinking is not None
    assert thinking.switches == switches


@pytest.mark.parametrize(("default", "by_default"), [("true", True), ("false", False)])
def test_a_toggles_default_is_the_templates(default: str, by_default: bool) -> None:
    template = CHATML + f"{{% if thinking | default({default}) %}}<think>{{% else %}}</think>{{% endif %}}"
    assert thinking_of(template) == Thinking(by_default=by_default, switches=("thinking",))


def test_of_what_is_no_template_nothing_is_known() -> None:
    assert thinking_of("{% if") is None
