"""Right and wrong answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.errors import DataError
from psserve.training.conversation import Conversation
from psserve.training.scorers import SCORERS, message_text, parse_calls, reference_text


def item(answer: str, tests: str = "") -> Conversation:
    return Conversation(({"role": "user", "content": "?"}, {"role": "assistant", "content": answer}), tests=tests)


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any]) -> Conversation:
    return Conversation(({"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": list(calls)}))


@pytest.mark.parametrize(("answer", "right"), [("Paris", True), (" Paris\n", True), ("paris", False), ("", False)])
def test_exact(answer: str, right: bool) -> None:
    assert SCORERS["exact"].judge(item("Paris"), answer) is right


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("1 + 1 = 2\n#### 2", "#### 2", True),
        ("#### 1,200", "so\n#### 1200", True),
        ("#### 2", "#### 2.0", True),
        ("#### -2", "#### -2", True),
        ("#### 2", "#### -2", False),
        ("#### 2", "#### 3\n#### 2", True),
        ("#### 2", "#### 2\n#### 3", False),
        ("#### 2", "the answer is 2", False),
        ("#### 2", "", False),
        ("It is 7.", "I think 7", True),
        ("It is 7.", "7, no, 8", False),
        ("It is 0.5.", ".5", True),
        ("It is 7.", "none", False),
        ("#### 5", "#### 5/8", False),
        ("#### 12", "#### 12abc", False),
        ("#### 1", "#### 1e3", False),
        ("#### 1", "#### 1,2", False),
        ("#### 5", "#### 5 apples, no more.", True),
        ("#### 5", "#### 5.", True),
        ("It is 5.", "10-5", True),
        ("It is 4.", "3,4", True),
    ],
)
def test_number(reference: str, answer: str, right: bool) -> None:
    assert SCORERS["number"].judge(item(reference), answer) is right


@settings(deadline=None)
@given(st.text())
def test_number_judges_any_text(answer: str) -> None:
    SCORERS["number"].judge(item("#### 2"), answer)
    SCORERS["number"].judge(item("2"), answer)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("def f(x):\n    return x + 1", True),
        ("Here it is:\n```python\ndef f(x):\n    return 1 + x\n```\nDone.", True),
        ("def f(x):\n    return x", False),
        ("def g(x):\n    return x + 1", False),
        ("def f(x) return", False),
        ("```Python3 \ndef f(x):\n    return x + 1\n```", True),
        ("```python\ndef f(x):\n    return x + 1", True),
        ("", False),
    ],
)
def test_python(answer: str, right: bool) -> None:
    assert SCORERS["python"].judge(item("", "assert f(1) == 2"), answer) is right


WANTED = calling(call("add", {"x": 1, "y": "a"}))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('<tool_call>\n{"name": "add", "arguments": {"x": 1, "y": "a"}}\n</tool_call>', True),
        ('<tool_call>{"arguments":{"y":"a","x":1},"name":"add"}</tool_call>', True),
        ('Sure. <tool_call>{"name": "add", "arguments": {"x": 1, "y": "a"}}</tool_call>', True),
        ('<tool_call>{"name": "add", "arguments": {"x": "1", "y": "a"}}</tool_call>', False),
        ('<tool_call>{"name": "add", "arguments": {"x": true, "y": "a"}}</tool_call>', False),
        ('<tool_call>{"name": "add", "arguments": {"x": 1}}</tool_call>', False),
        ('<tool_call>{"name": "sub", "arguments": {"x": 1, "y": "a"}}</tool_call>', False),
        ('{"name": "add", "arguments": {"x": 1, "y": "a"}}', False),
        ("<tool_call>add</tool_call>", False),
        ("<tool_call>[1]</tool_call>", False),
        ('<tool_call>{"name": "add", "arguments": {"x": 1, "y": "a"}}</tool_call><tool_call>{"name"', False),
        ('<tool_call>{"name": "add", "arguments": {"x": 1, "y": "a"}}</tool_call></tool_call>', False),
        ('<tool_call>{"name": "add"}</tool_call>', False),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", False),
        ("", False),
    ],
)
def test_tool_call(answer: str, right: bool) -> None:
    assert SCORERS["tool-call"].judge(WANTED, answer) is right


def test_every_call_must_be_there() -> None:
    two = calling(call("a", {}), call("b", {}))
    assert not SCORERS["tool-call"].judge(two, reference_text(calling(call("a", {}))))
    assert not SCORERS["tool-call"].judge(calling(call("a", {})), reference_text(two))


arguments = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=4)


@settings(deadline=None)
@given(st.text(), arguments)
def test_calls_survive_being_text(name: str, arguments: dict[str, Any]) -> None:
    texts = [message_text({"tool_calls": [call(name, form)]}) for form in (arguments, json.dumps(arguments))]
    if "</tool_call>" not in texts[0]:
        assert parse_calls(texts[0]) == parse_calls(texts[1]) == [json.dumps([name, arguments], sort_keys=True)]


@pytest.mark.parametrize(
    ("scorer", "bad"),
    [
        ("number", item("no number")),
        ("python", item("def f(): pass")),
        ("tool-call", item("no call")),
        ("exact", Conversation(({"role": "user", "content": "?"},))),
        ("exact", Conversation(({"role": "assistant", "content": "!"},))),
    ],
)
def test_an_item_that_cannot_be_judged_is_refused(scorer: str, bad: Conversation) -> None:
    with pytest.raises(DataError):
        SCORERS[scorer].check_items([bad])


def test_verdicts_are_in_the_order_of_the_items() -> None:
    items = [item(f"#### {number}") for number in range(20)]
    answers = [f"#### {number * (number % 2)}" for number in range(20)]
    assert SCORERS["number"].judge_all(items, answers) == [number % 2 == 1 or number == 0 for number in range(20)]


def test_thoughts_are_no_part_of_an_answer() -> None:
    assert SCORERS["exact"].judge_all([item("Paris")], ["<think>\n\n</think>\n\nParis"]) == [True]
