"""Items of all tasks: seeded, different, split for good, and judged right by their own scorer."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice, pairwise
from typing import Any

import orjson
import pytest

from psserve.demo.tasks import TASKS, code, held_out_items, training_items
from psserve.demo.tasks.corpus import corpus, reading, training_item
from psserve.demo.tasks.items import TEST_SHARE, content_hash, split_of
from psserve.training.conversation import Conversation
from psserve.training.scorers import SCORERS, reference_text
from psserve.training.tokenization import tokenize_conversation
from tests.demo.tasks.reading import solve

task_names = pytest.mark.parametrize("name", TASKS)


@cache
def thousand(name: str) -> list[Conversation]:
    """A task's first held-out items: making them costs more than most laws about them."""
    return held_out_items(name, 1000)


@task_names
def test_a_seed_gives_the_same_items_and_another_seed_others(name: str) -> None:
    assert training_items(name, 50, 1) == training_items(name, 50, 1)
    assert training_items(name, 50, 1) != training_items(name, 50, 2)


@task_names
def test_held_out_items_are_all_different(name: str) -> None:
    assert len({content_hash(item) for item in thousand(name)}) == 1000


def asked(conversation: Conversation) -> set[tuple[str, bytes]]:
    """Every question of a conversation, with its tools."""
    tools = orjson.dumps(conversation.tools)
    return {(message["content"], tools) for message in conversation.messages if message["role"] == "user"}


def solutions(conversation: Conversation, name: str) -> set[str]:
    """Every solution in a conversation."""
    return {TASKS[name].solution(message) for message in conversation.messages if message["role"] == "assistant"}


@task_names
def test_no_question_and_no_solution_is_in_both_sets(name: str) -> None:
    tested, trained = thousand(name)[:300], training_items(name, 3000)
    for part in (asked, lambda conversation: solutions(conversation, name)):
        held_out, seen = (set().union(*map(part, conversations)) for conversations in (tested, trained))
        assert len(held_out) > 200
        assert not held_out & seen


def test_a_solution_is_the_function_whatever_its_names() -> None:
    first, second = (
        {"content": f"def {name}({argument}):\n    {argument} = {argument}[::-1]\n    return {argument} + 'a'"}
        for name, argument in (("f", "a"), ("get_text", "text"))
    )
    assert code.solution(first) == code.solution(second)
    assert code.solution(first) != code.solution({"content": "def f(s):\n    return s.upper()"})


@task_names
def test_the_split_is_a_property_of_the_question(name: str) -> None:
    assert all(split_of(item) == "test" for item in held_out_items(name, 50, seed=7))


def test_the_test_set_has_its_share() -> None:
    items = [TASKS["math"].make(random.Random(seed)) for seed in range(2000)]
    share = sum(split_of(item) == "test" for item in items) / len(items)
    assert abs(share - TEST_SHARE) < 0.03


@task_names
def test_reference_answers_are_right(name: str) -> None:
    task = TASKS[name]
    scorer = SCORERS[task.scorer]
    for item in thousand(name)[:12]:
        assert scorer.judge(item, reference_text(item))


def test_problems_have_the_answer_that_their_english_has() -> None:
    for item in thousand("math")[:500]:
        assert reference_text(item).endswith(f"#### {solve(item.messages[0]['content'])}"), item


def test_unit_tests_refuse_programs_that_miss_a_part() -> None:
    items = thousand("code")[:300]
    sources = [reference_text(item) for item in items]
    for wrong, most in ((without_body, 0), (with_another_number, 0.05), (without_condition, 0.03)):
        changed = [(wrong(source), item.tests) for source, item in zip(sources, items, strict=True)]
        tried = [pair for pair, source in zip(changed, sources, strict=True) if pair[0] != source]
        assert len(tried) > 50
        assert sum(passes_here(*pair) for pair in tried) <= most * len(tried), wrong.__name__


def without_body(source: str) -> str:
    """The function that returns its argument."""
    head = source.partition("\n")[0]
    return f"{head}\n    return {head.partition('(')[2].removesuffix('):')}"


def with_another_number(source: str) -> str:
    """The first comparison's number is one more."""
    return re.sub(r"(?<=[<>=] )(\d+)", lambda number: str(int(number[0]) + 1), source, count=1)


def without_condition(source: str) -> str:
    """All elements are taken."""
    return re.sub(r" if e [^),]*", "", source)


def passes_here(source: str, tests: str) -> bool:
    """Like `passes`, without a process: these programs are known."""
    try:
        exec(f"{source}\n{tests}", {})
    except Exception:  # noqa: BLE001 (whatever a wrong program raises)
        return False
    return True


@task_names
def test_the_answer_of_another_item_is_wrong(name: str) -> None:
    task = TASKS[name]
    scorer = SCORERS[task.scorer]
    items = thousand(name)[:12]
    wrong = [scorer.judge(item, reference_text(other)) for item, other in pairwise(items)]
    assert sum(wrong) <= 2  # two problems may have the same result by chance


@task_names
def test_answers_fit_their_limit(name: str, tokenizer: Any) -> None:
    for item in thousand(name)[:300]:
        assert tokenize_conversation(item, tokenizer, 1024).answer_tokens <= TASKS[name].longest_answer


@task_names
def test_the_base_reads_no_test_question(name: str) -> None:
    rng = random.Random(0)
    assert {split_of(training_item(rng, TASKS[name].make)) for _ in range(200)} == {"train"}


@pytest.mark.parametrize("texts_of", [corpus, reading])
def test_the_corpus_has_no_test_question(texts_of: Callable[[int], Iterator[str]]) -> None:
    asked = {item.messages[0]["content"] for name in ("math", "code") for item in thousand(name)[:500]}
    texts = "\n".join(islice(texts_of(3), 3000))
    written = set(re.findall(r"<\|im_start\|>user\n(.*)<\|im_end\|>", texts)) | set(
        re.findall(r"^# (.*)$", texts, re.M)
    )
    assert len(written) > 500
    assert not asked & written


def test_the_corpus_does_not_show_how_modules_answer() -> None:
    texts = "\n".join(islice(corpus(4), 2000))
    assert "####" not in texts
    assert "<tool_call>" not in texts
    assert "assistant\ndef " not in texts
