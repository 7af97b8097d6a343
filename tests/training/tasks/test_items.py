"""Items of all tasks: seeded, different, split for good, and judged right by their own scorer."""

from __future__ import annotations

import re
from itertools import islice, pairwise
from typing import Any

import pytest

from psserve.training.scorers import SCORERS, reference_text
from psserve.training.tasks import TASKS, held_out_items, training_items
from psserve.training.tasks.corpus import corpus
from psserve.training.tasks.items import TEST_SHARE, content_hash, split_of
from psserve.training.tokenization import tokenize

task_names = pytest.mark.parametrize("name", TASKS)


@task_names
def test_a_seed_gives_the_same_items_and_another_seed_others(name: str) -> None:
    assert training_items(name, 50, 1) == training_items(name, 50, 1)
    assert training_items(name, 50, 1) != training_items(name, 50, 2)


@task_names
def test_held_out_items_are_all_different(name: str) -> None:
    assert len({content_hash(item) for item in held_out_items(name, 1000)}) == 1000


@task_names
def test_no_question_is_in_both_sets(name: str) -> None:
    tested = {item.messages[0]["content"] for item in held_out_items(name, 300) if not item.tools}
    trained = [
        message["content"] for item in training_items(name, 2000) for message in item.messages if "content" in message
    ]
    assert not tested.intersection(trained)


@task_names
def test_the_split_is_a_property_of_the_question(name: str) -> None:
    assert all(split_of(item) == "test" for item in held_out_items(name, 50, seed=7))


def test_the_test_set_has_its_share() -> None:
    import random

    items = [TASKS["math"].make(random.Random(seed)) for seed in range(2000)]
    share = sum(split_of(item) == "test" for item in items) / len(items)
    assert abs(share - TEST_SHARE) < 0.03


@task_names
def test_reference_answers_are_right(name: str) -> None:
    task = TASKS[name]
    scorer = SCORERS[task.scorer]
    for item in held_out_items(name, 12):
        assert scorer.judge(item, reference_text(item))


@task_names
def test_the_answer_of_another_item_is_wrong(name: str) -> None:
    task = TASKS[name]
    scorer = SCORERS[task.scorer]
    items = held_out_items(name, 12)
    wrong = [scorer.judge(item, reference_text(other)) for item, other in pairwise(items)]
    assert sum(wrong) <= 2  # two problems may have the same result by chance


@task_names
def test_answers_fit_their_limit(name: str, tokenizer: Any) -> None:
    for item in held_out_items(name, 300):
        assert tokenize(item, tokenizer, 1024).answer_tokens <= TASKS[name].longest_answer


def test_the_corpus_has_no_test_question() -> None:
    asked = {item.messages[0]["content"] for name in ("math", "code") for item in held_out_items(name, 2000)}
    texts = "\n".join(islice(corpus(3), 3000))
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
