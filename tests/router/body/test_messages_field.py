"""Messages as other servers' answers bring them back, made ready to be rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from psserve.router.body.messages import arguments_of, with_readable_calls


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


@pytest.mark.parametrize("text", ['{"a": 1', "12", "null", '"x"', "[1]", "Rome"])
def test_what_is_no_object_is_one_that_holds_it_as_text(text: str) -> None:
    made = arguments({"arguments": text})
    assert json.loads(made) == {"psserve_invalid_arguments": text} == arguments_of(text)


def test_other_messages_are_left_alone() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x", "tool_calls": []}]
    assert with_readable_calls(messages) == messages
