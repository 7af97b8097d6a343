"""What makes an answer right, and how many are: four scorers, each a reading of the answer and of the reference."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from psserve.errors import DataError
from psserve.training.conversation import Conversation
from psserve.training.execution import passes

if TYPE_CHECKING:
    from psserve.training.answers import Answerer


_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
NUMBER = re.compile(rf"(?:(?<!\d)-)?(?:{_DIGITS})")
MARKED_NUMBER = re.compile(rf"####\s*(-?(?:{_DIGITS}))(?![\w/.,]*\w)")  # not the 5 of 5/8, nor the 12 of 12abc
CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
CALL_TAG = re.compile(r"</?tool_call>")
FENCED = re.compile(r"```(?:python3?|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
THINKING = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True)
class Scorer:
    """`judge(item, answer)` says whether the answer to `item`'s prompt is right; `check(item)` whether it can tell."""

    judge: Callable[[Conversation, str], bool]
    check: Callable[[Conversation], object]
    """Something false if the item has nothing to judge answers by."""
    needs: str
    """What an item must have, for messages."""

    def check_items(self, items: Sequence[Conversation]) -> None:
        """Raise DataError for the first item that this scorer cannot judge answers to."""
        for item in items:
            if item.messages[-1]["role"] != "assistant" or len(item.messages) < 2:
                raise DataError(f"{item.where}: the last message must be the reference answer of an assistant")
            if not self.check(item):
                raise DataError(f"{item.where}: this scorer needs {self.needs}")

    def judge_all(self, items: Sequence[Conversation], answers: Sequence[str]) -> list[bool]:
        """One verdict an item, on what follows a reasoning model's thoughts. Programs run side by side, one a core."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return list(threads.map(self.judge, items, [THINKING.sub("", answer) for answer in answers]))


def message_text(message: Mapping[str, Any]) -> str:
    """An assistant message as one text: its content, then each tool call between its tags."""
    parts = [message["content"]] if message.get("content") else []
    for call in message.get("tool_calls") or ():
        arguments = call["function"]["arguments"]
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        name = json.dumps(call["function"]["name"], ensure_ascii=False)
        parts.append(f'<tool_call>\n{{"name": {name}, "arguments": {text}}}\n</tool_call>')
    return "\n".join(parts)


def reference_text(item: Conversation) -> str:
    """The reference answer as text."""
    return message_text(item.messages[-1])


def exact(item: Conversation, answer: str) -> bool:
    """The same text, white space around it aside."""
    return answer.strip() == reference_text(item).strip()


def same_number(item: Conversation, answer: str) -> bool:
    """The same final number. Where the reference marks it with `####`, the answer must too."""
    reference = reference_text(item)
    marked = MARKED_NUMBER.search(reference) is not None
    return final_number(answer, marked) == final_number(reference, marked) is not None


def final_number(text: str, marked: bool) -> Decimal | None:
    """The last number of a text (or the last one after `####`), None if there is none."""
    found = (MARKED_NUMBER if marked else NUMBER).findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


def python(item: Conversation, answer: str) -> bool:
    """The answer's program (its fenced block, if it has one) passes the item's tests."""
    fenced = FENCED.search(answer)
    return passes(fenced[1] if fenced else answer, item.tests)


def tool_call(item: Conversation, answer: str) -> bool:
    """The same calls in the same order: names and arguments as parsed JSON, spacing and order of keys aside."""
    wanted = parse_calls(reference_text(item))
    return bool(wanted) and parse_calls(answer) == wanted


def parse_calls(text: str) -> list[str] | None:
    """The calls in a text, each as canonical JSON (in which 1, 1.0 and true differ); None if one is damaged or open."""
    if CALL_TAG.search(CALL.sub("", text)):
        return None
    calls = []
    for body in CALL.findall(text):
        try:
            call = json.loads(body)
            calls.append(json.dumps([call["name"], call["arguments"]], sort_keys=True))
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
    return calls


SCORERS = {
    "exact": Scorer(exact, reference_text, "a reference answer"),
    "number": Scorer(same_number, lambda item: NUMBER.search(reference_text(item)), "a number in the reference answer"),
    "python": Scorer(python, lambda item: item.tests, "unit tests (the field `tests`)"),
    "tool-call": Scorer(tool_call, lambda item: item.messages[-1].get("tool_calls"), "a tool call as reference answer"),
}
"""The scorers by name."""


@dataclass(frozen=True)
class Score:
    """`right` of `total` answers."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """Accuracy, 0 to 1."""
        return self.right / self.total


def evaluate(answerer: Answerer, items: Sequence[Conversation], scorer: Scorer, max_tokens: int) -> Score:
    """Answer all items and judge the answers; DataError if `scorer` cannot judge one of them."""
    scorer.check_items(items)
    verdicts = scorer.judge_all(items, answerer.answer(items, max_tokens))
    return Score(sum(verdicts), len(verdicts))
