"""Batches of like length, in an order that only seed and epoch decide."""

from __future__ import annotations

import random

from psserve.training.hf import TrainerState
from psserve.training.trainer import EpochOrder, LengthGrouped

LENGTHS = [random.Random(0).choice((10, 100, 1000)) for _ in range(400)]


def order(seed: int = 0, epoch: int = 0) -> list[int]:
    sampler = LengthGrouped(LENGTHS, 8, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_every_conversation_comes_once_an_epoch() -> None:
    assert sorted(order()) == list(range(len(LENGTHS)))


def test_batches_have_little_padding() -> None:
    indices = order()
    batches = [[LENGTHS[i] for i in indices[at : at + 8]] for at in range(0, len(indices), 8)]
    assert sum(len(set(batch)) == 1 for batch in batches) > 0.8 * len(batches)


def test_seed_and_epoch_decide_the_order() -> None:
    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert order(epoch=1) != order(epoch=0)
    assert order(seed=1) != order(seed=0)


def test_an_epochs_order_does_not_depend_on_earlier_epochs() -> None:
    sampler = LengthGrouped(LENGTHS, 8, seed=0)
    list(sampler)
    sampler.set_epoch(3)
    assert list(sampler) == order(epoch=3)


def test_a_run_that_is_resumed_amid_an_epoch_has_that_epochs_order() -> None:
    sampler = LengthGrouped(LENGTHS, 8, seed=0)
    EpochOrder(sampler).on_epoch_begin(None, TrainerState(epoch=2.5), None)
    assert list(sampler) == order(epoch=2)
