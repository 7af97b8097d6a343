from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scripts.measuring.exactness import Judgement, Served, judge, summary

TOLERANCE = 0.1
LOGITS = torch.tensor([[0.0, 1.0, 5.0, 2.0], [4.0, 0.0, 3.99, 1.0], [0.0, 7.0, 1.0, 2.0]])


def served(*tokens: int) -> Served:
    logprobs = LOGITS.log_softmax(-1)
    return Served(tokens, [{token: float(row[token])} for token, row in zip(tokens, logprobs, strict=True)])


def test_the_references_own_tokens_are_equal() -> None:
    judged = judge(LOGITS, served(2, 0, 1), TOLERANCE)
    assert judged.equal
    assert (judged.first_tie, judged.first_wrong, judged.worst_gap) == (None, None, 0)


def test_the_second_best_token_of_a_near_tie_is_equal_too() -> None:
    judged = judge(LOGITS, served(2, 2, 1), TOLERANCE)
    assert judged.equal
    assert (judged.first_tie, judged.first_wrong) == (1, None)


def test_any_other_token_is_wrong() -> None:
    judged = judge(LOGITS, served(2, 3, 0), TOLERANCE)
    assert not judged.equal
    assert judged.first_wrong == 1


def test_right_tokens_with_wrong_log_probabilities_are_not_equal() -> None:
    answer = served(2, 0, 1)
    other = Served(answer.tokens, [*answer.top[:2], {1: answer.top[2][1], 3: -1.0}])
    judged = judge(LOGITS, other, TOLERANCE)
    assert not judged.equal
    assert judged.first_wrong is None


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_distances_do_not_depend_on_the_scale_of_logits(factor: float) -> None:
    answer = Served([2, 2, 1], [{}, {}, {}])
    scaled = Served([2, 2, 1], [{0: 0.0}] * 3)
    gap = judge(LOGITS, replace(answer, top=served(2, 2, 1).top), TOLERANCE).worst_gap
    assert judge(LOGITS * factor, scaled, TOLERANCE).worst_gap == pytest.approx(gap, rel=1e-3)


def judgement(equal: bool) -> Judgement:
    return Judgement(3, None, None if equal else 1, 0.0 if equal else 2.0, 0.01, TOLERANCE)


@pytest.mark.parametrize(
    ("judged", "control", "passed"),
    [(True, False, True), (False, False, False), (True, True, False), (False, True, False)],
)
def test_a_verdict_needs_equal_answers_and_a_control_that_refuses(judged: bool, control: bool, passed: bool) -> None:
    assert summary([judgement(True), judgement(judged)], [judgement(False), judgement(control)])["passed"] is passed


def test_an_empty_answer_is_not_equal() -> None:
    assert not replace(judgement(True), tokens=0).equal
