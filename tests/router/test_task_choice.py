"""From scores to a module: threshold, default and sessions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.router.task_routing.choice import MAX_TEXT, ModuleChoice, Sessions, choose_module, task_request
from psserve.router.task_routing.classifier import Decision

SURE = Decision({"math": 0.1, "code": 0.8})
UNSURE = Decision({"math": 0.2, "code": 0.1})


def test_likeliest_module_answers() -> None:
    assert choose_module(SURE, 0.5, own=None, default=None) == ModuleChoice("code", 0.8, "clear")


def test_unclear_request_goes_to_the_default() -> None:
    assert choose_module(UNSURE, 0.5, own=None, default="math") == ModuleChoice("math", 0.2, "default")


def test_unclear_request_without_default_is_nobodys() -> None:
    assert choose_module(UNSURE, 0.5, own=None, default=None) is None


def test_session_goes_on_with_its_module_when_a_request_is_unclear() -> None:
    assert choose_module(UNSURE, 0.5, own="code", default="math") == ModuleChoice("code", 0.1, "kept")


def test_session_changes_when_the_task_clearly_does() -> None:
    assert choose_module(SURE, 0.5, own="math", default=None) == ModuleChoice("code", 0.8, "clear")


def test_session_does_not_change_for_a_little_more() -> None:
    close = Decision({"math": 0.4, "code": 0.55})
    assert choose_module(close, 0.5, own="math", default=None) == ModuleChoice("math", 0.4, "kept")


def test_equal_scores_go_to_the_first_name() -> None:
    assert Decision({"b": 0.5, "a": 0.5}).module == "a"


def test_no_scores_mean_no_module() -> None:
    assert (Decision({}).module, Decision({}).confidence) == (None, 0.0)


@given(st.lists(st.tuples(st.text(max_size=5), st.sampled_from(["math", "code"])), max_size=60))
def test_sessions_are_bounded_and_remember_the_last_ones(steps: list[tuple[str, str]]) -> None:
    sessions = Sessions(limit=8)
    for name, module in steps:
        sessions.put(name, module)
    recent: dict[str, str] = {}
    for name, module in reversed(steps):
        recent.setdefault(name, module)
    assert len(sessions) <= 8
    for name, module in list(recent.items())[:8]:
        assert sessions.get(name) == module


def test_requests_without_session_leave_nothing() -> None:
    sessions = Sessions()
    sessions.put(None, "math")
    assert len(sessions) == 0
    assert sessions.get(None) is None


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


ASSISTANT = {"role": "assistant", "content": None, "tool_calls": []}


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([user("one"), ASSISTANT, user("two")], "two"),
        ([user("one"), ASSISTANT, {"role": "tool", "content": "12", "tool_call_id": "1"}], "one"),
        ([user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])], "a\nb"),
        ([{"role": "system", "content": "be brief"}], ""),
    ],
)
def test_last_user_message_is_classified(messages: list[dict[str, object]], text: str) -> None:
    assert task_request({"messages": messages}).text == text


def test_long_message_is_read_at_both_ends() -> None:
    text = task_request({"messages": [user("begin " + "x" * 100_000 + " end")]}).text
    assert len(text) == MAX_TEXT + 1
    assert text.startswith("begin ")
    assert text.endswith(" end")


@pytest.mark.parametrize(
    ("prompt", "text"),
    [("a prompt", "a prompt"), (["first", "second"], "first"), ([1, 2, 3], ""), ("x" * 5000, "x" * MAX_TEXT)],
)
def test_end_of_a_prompt_is_classified(prompt: object, text: str) -> None:
    assert task_request({"prompt": prompt}).text == text


@pytest.mark.parametrize(
    ("fields", "offered"),
    [({}, False), ({"tools": [1]}, True), ({"tools": []}, False), ({"tools": [1], "tool_choice": "none"}, False)],
)
def test_tools_count_when_they_may_be_called(fields: dict[str, object], offered: bool) -> None:
    assert task_request({"messages": [user("hi")]} | fields).has_tools is offered
