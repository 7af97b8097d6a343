"""The last message as SGLang's chat endpoint takes it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from psserve.engine.fixes import last_message
from tests.engine.hooked import hooked

USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "Hello", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}


@pytest.fixture(autouse=True, scope="module")
def with_hooks() -> Iterator[None]:
    with hooked(last_message.hooks()):
        yield


def taken(*messages: dict[str, Any], continued: bool = False) -> Any:
    from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat

    request = SimpleNamespace(continue_final_message=continued)
    return OpenAIServingChat._handle_last_assistant_message(None, list(messages), request)


def test_a_last_message_of_the_assistant_stays_as_it_is() -> None:
    assert taken(USER, ASSISTANT) == ([USER, ASSISTANT], None)


def test_one_to_be_continued_begins_the_answer() -> None:
    assert taken(USER, ASSISTANT, continued=True) == ([USER], "Hello")


def test_a_last_message_of_the_user_is_no_matter() -> None:
    assert taken(USER) == ([USER], None)
