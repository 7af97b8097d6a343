"""Batches of other libraries' collators: which of their rows are conversations, and where the answers are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from psserve.errors import DataError
from psserve.training.batch import Tokenized, cache_batch
from psserve.training.labelled_rows import AnswersOverCache, labelled_rows

END, TEXT = 2, -100


def batch(ids: list[list[int]], labels: list[list[int]], **more: Any) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)} | {
        name: torch.tensor(value) for name, value in more.items()
    }


def test_runs_of_labels_are_answers() -> None:
    rows = labelled_rows(batch([[5, 6, 7, END, 8, 9, END]], [[TEXT, 6, 7, END, TEXT, 9, END]]), END)
    assert rows == [Tokenized([5, 6, 7, END, 8, 9, END], [(1, 4), (5, 7)])]


def test_an_answer_stops_at_its_end_of_turn() -> None:
    newline = 9
    rows = labelled_rows(batch([[5, 6, END, newline]], [[TEXT, 6, END, newline]]), END)
    assert rows[0].answers == [(1, 3)]


def test_an_answer_that_was_cut_is_trained_on_as_it_is() -> None:
    assert labelled_rows(batch([[5, 6, 7]], [[TEXT, 6, 7]]), END)[0].answers == [(1, 3)]


@pytest.mark.parametrize(("ids", "mask"), [([5, 6, END, 0, 0], [1, 1, 1, 0, 0]), ([0, 0, 5, 6, END], [0, 0, 1, 1, 1])])
def test_padding_on_either_side_is_dropped(ids: list[int], mask: list[int]) -> None:
    labels = [token if token in (6, END) else TEXT for token in ids]
    assert labelled_rows(batch([ids], [labels], attention_mask=[mask]), END) == [Tokenized([5, 6, END], [(1, 3)])]


def test_a_wrapped_collator_makes_the_batch_of_the_loss() -> None:
    plain = batch([[5, 6, 7, END], [5, 8, END, 0]], [[TEXT, TEXT, 7, END], [TEXT, 8, END, TEXT]])
    wrapped = AnswersOverCache(lambda _: plain, END)(None)
    wanted = cache_batch([Tokenized([5, 6, 7, END], [(2, 4)]), Tokenized([5, 8, END], [(1, 3)])])
    assert wrapped.keys() == wanted.keys()
    assert all(torch.equal(wrapped[name], wanted[name]) for name in wanted)


REFUSED = {
    "several conversations in a row": (batch([[5, 6]], [[TEXT, 6]], position_ids=[[0, 1]]), "several conversations"),
    "a mask of pairs of tokens": (batch([[5, 6]], [[TEXT, 6]], attention_mask=[[[1, 0], [1, 1]]]), "several conv"),
    "nothing to train on": (batch([[5, 6]], [[TEXT, TEXT]]), "nothing to train on"),
    "nothing before it": (batch([[5, 6]], [[5, 6]]), "from its first token"),
    "labels of other tokens": (batch([[5, 6]], [[TEXT, 7]]), "another token than the row's own"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_rows_that_cannot_be_trained_on_are_refused(case: str) -> None:
    rows, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        labelled_rows(rows, END)
