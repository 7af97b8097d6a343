"""Messages as other servers' answers bring them back, made ready to be rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from psserve.router.body.messages import arguments_of, with_readable_calls, with_roles


def arguments(given: Any) -> Any:
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", **given}}]}
    (made,) = with_readable_calls([message])
    (call,) = made["tool_calls"]
    assert call["type"] == "function"
    return call["function"]["arguments"]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, "{}"),
        ({"arguments": None}, "{}"),
        ({"arguments": ""}, "{}"),
        ({"arguments": {"a": 1}}, '{"a":1}'),
        ({"arguments": '{"a": 1}'}, '{"a": 1}'),
        ({"arguments": " {} "}, " {} "),
    ],
)
def test_arguments_of_a_history_are_text_of_an_object(given: Any, made: str) -> None:
    assert arguments(given) == made


@pytest.mark.parametrize("text", ['{"a": 1', "12", "null", '"x"', "[1]", "Rome", '{"a":' + "[" * 200 + "]" * 200 + "}"])
def test_what_is_no_object_is_one_that_holds_it_as_text(text: str) -> None:
    made = arguments({"arguments": text})
    assert json.loads(made) == {"psserve_invalid_arguments": text} == arguments_of(text)


def test_arguments_of_many_levels_that_came_from_here_go_back_as_text() -> None:
    text = '{"psserve_invalid_arguments":' + "[" * 300 + "]" * 300 + "}"
    assert json.loads(arguments({"arguments": text})) == {"psserve_invalid_arguments": text}


def test_other_messages_are_left_alone() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x", "tool_calls": []}]
    assert with_readable_calls(messages) == messages


def said(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in pairs]


MIXED = said(("developer", "A"), ("user", "hi"), ("system", [{"type": "text", "text": "B"}]), ("user", "ho"))


def test_the_developers_instructions_are_the_systems() -> None:
    made = with_roles(MIXED, in_place=True)
    assert [message["role"] for message in made] == ["system", "user", "system", "user"]
    assert [message["content"] for message in made] == [message["content"] for message in MIXED]


def test_instructions_between_others_go_to_the_front_where_they_must() -> None:
    assert with_roles(MIXED, in_place=False) == said(("system", "A\n\nB"), ("user", "hi"), ("user", "ho"))


@pytest.mark.parametrize("in_place", [True, False])
def test_a_chat_without_instructions_between_is_left_alone(in_place: bool) -> None:
    chat = said(("system", "A"), ("user", "hi"), ("assistant", "x"), ("user", "ho"))
    assert with_roles(chat, in_place=in_place) == chat
