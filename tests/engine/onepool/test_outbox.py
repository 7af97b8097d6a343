"""What is said is said in order, and not before the GPU has done what it tells of."""

from __future__ import annotations

from psserve.engine.onepool.outbox import Outbox
from tests.engine.onepool.spaces import Work


def test_what_is_done_is_said_at_once() -> None:
    said: list[str] = []
    Outbox().put(lambda: said.append("taken"))
    assert said == ["taken"]


def test_all_waits_for_what_is_not_done_and_keeps_its_order() -> None:
    said: list[str] = []
    outbox, copies = Outbox(), [Work(), Work()]
    outbox.put(lambda: said.append("taken 1"), copies[0])
    outbox.put(lambda: said.append("taken 2"), copies[1])
    outbox.put(lambda: said.append("released 1"))
    copies[1].is_done = True
    outbox.look()
    assert said == []
    copies[0].is_done = True
    outbox.look()
    assert said == ["taken 1", "taken 2", "released 1"]
    outbox.look()
    assert len(said) == 3
