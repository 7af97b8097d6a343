"""How often a scheduler looks whether KV has come."""

from __future__ import annotations

import pytest

from psserve.engine.cpu.waiting import Wait


def test_pauses_grow_with_the_wait_up_to_a_bound() -> None:
    wait = Wait()
    assert [wait.pause_s(7, now) for now in (10.0, 10.001, 10.04, 12.0)] == pytest.approx(
        [0.0005, 0.0005, 0.002, 0.005]
    )


def test_work_in_between_begins_a_new_wait() -> None:
    wait = Wait()
    wait.pause_s(7, 10.0)
    assert wait.pause_s(7, 20.0) > wait.pause_s(8, 20.0) == 0.0005
