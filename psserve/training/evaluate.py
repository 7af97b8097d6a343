"""How many answers of a module are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psserve.training.answers import Answerer
from psserve.training.conversation import Conversation
from psserve.training.scorers import Scorer


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
