"""The order in which groups that compete are served."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from psserve.router.admission.fair import FairQueue


def drain(queue: FairQueue[str], count: int) -> list[str]:
    """Take so many items, each from the group whose turn it is."""
    return [queue.take(queue.turns()[0]) for _ in range(count)]


def filled(weights: dict[str, float], items: dict[str, int], cost: float = 1.0) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue(weights)
    for name, count in items.items():
        for _ in range(count):
            queue.push(name, name, cost=cost)
    return queue


def test_a_flood_of_one_group_leaves_the_others_every_second_turn() -> None:
    queue = filled({}, {"flood": 500})
    drain(queue, 100)
    for _ in range(20):
        queue.push("late", "late", cost=1)
    assert drain(queue, 40).count("late") == 20


def test_weights_are_shares() -> None:
    served = Counter(drain(filled({"a": 3}, {"a": 300, "b": 300}), 200))
    assert served == {"a": 150, "b": 50}


def test_cost_counts_and_not_the_number_of_items() -> None:
    queue = filled({}, {"short": 300})
    for _ in range(100):
        queue.push("long", "long", cost=9)
    assert Counter(drain(queue, 100)) == {"short": 90, "long": 10}


def test_nobody_saves_up_turns_while_idle() -> None:
    queue = filled({}, {"busy": 200})
    drain(queue, 100)
    for _ in range(50):
        queue.push("idle", "idle", cost=1)
    assert drain(queue, 20).count("idle") == 10


def test_within_a_group_priority_decides_and_then_arrival() -> None:
    queue: FairQueue[str] = FairQueue({})
    for item, priority in (("first", 0), ("second", 0), ("urgent", 5), ("late", -1)):
        queue.push("m", item, cost=1, priority=priority)
    assert drain(queue, 4) == ["urgent", "first", "second", "late"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-2, 2), st.booleans())))
def test_every_item_is_taken_once_or_removed(pushes: list[tuple[str, int, bool]]) -> None:
    queue: FairQueue[int] = FairQueue({})
    kept = []
    for number, (name, priority, stays) in enumerate(pushes):
        entry = queue.push(name, number, cost=1, priority=priority)
        if stays:
            kept.append(number)
        else:
            queue.remove(name, entry)
            queue.remove(name, entry)
    assert len(queue) == len(kept)
    assert sorted(queue.take(queue.turns()[0]) for _ in kept) == kept
    assert (len(queue), queue.turns()) == (0, [])
