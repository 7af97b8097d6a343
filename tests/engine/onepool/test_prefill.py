"""A prefill server that lends is busy to all that would drop its tree, and sleeps all the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from psserve.engine.handover.sglang import members
from psserve.engine.handover.sglang.scheduler import IdleSleeper
from psserve.engine.onepool.leases import Lease, LeaseTable, Waker
from psserve.engine.onepool.prefill import hooks
from psserve.engine.settings import NegativeControl

_CHECKER = "sglang.srt.managers.scheduler_components.invariant_checker.SchedulerInvariantChecker"
_SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"


class Scheduler:
    """One that has nothing to run. Asleep, it is woken by what its poller hears, else after `SLEEP_MS`."""

    SLEEP_MS = 10_000

    def __init__(self) -> None:
        self.manager = SimpleNamespace(leases=LeaseTable(), waker=Waker())
        self.disagg_prefill_bootstrap_queue = SimpleNamespace(kv_manager=self.manager)
        self.idle_sleeper: IdleSleeper | None = SimpleNamespace(poller=zmq.Poller())
        self.runs = False
        self.slept = 0
        self.checked = 0
        functions = {hook.target: hook.function for hook in hooks(NegativeControl.NONE)}
        self._idle_hook = functions[f"{_SCHEDULER}.is_fully_idle"]
        self._sleep_hook = functions[f"{_SCHEDULER}.on_idle"]
        self._check_hook = functions[f"{_CHECKER}._check_tree_cache"]

    def is_fully_idle(self, **options: bool) -> bool:
        return bool(self._idle_hook(lambda *args, **options: not self.runs, self, **options))

    def on_idle(self) -> None:
        self._sleep_hook(Scheduler._housekeeping, self)

    def _housekeeping(self) -> None:
        if self.is_fully_idle():
            self._check_hook(lambda checker: setattr(self, "checked", self.checked + 1), "checker")
            self.slept += 1
            if self.idle_sleeper:
                self.idle_sleeper.poller.poll(self.SLEEP_MS)

    def lend(self) -> None:
        self.manager.leases.lend(Lease(1, "reader", "node", 16, 0.0))


@pytest.fixture
def scheduler() -> Any:
    return Scheduler()


def test_the_stand_in_has_what_is_believed_of_the_sleeper(scheduler: Any) -> None:
    assert set(members(IdleSleeper)) <= set(vars(scheduler.idle_sleeper))


def test_it_is_busy_while_it_lends(scheduler: Any) -> None:
    assert scheduler.is_fully_idle()
    scheduler.lend()
    assert not scheduler.is_fully_idle()


def test_lending_is_not_what_a_health_check_asks_for(scheduler: Any) -> None:
    scheduler.lend()
    assert scheduler.is_fully_idle(for_health_check=True)


def test_it_sleeps_while_it_lends(scheduler: Any) -> None:
    scheduler.lend()
    scheduler.SLEEP_MS = 0
    scheduler.on_idle()
    assert scheduler.slept == 1
    assert not scheduler.is_fully_idle()


def test_it_does_not_sleep_while_something_runs(scheduler: Any) -> None:
    scheduler.runs = True
    scheduler.on_idle()
    assert scheduler.slept == 0


def test_what_comes_back_ends_its_sleep_once(scheduler: Any) -> None:
    scheduler.lend()
    scheduler.manager.waker.wake()
    scheduler.on_idle()  # would sleep for ten seconds
    assert scheduler.idle_sleeper.poller.poll(0) == []


def test_its_tree_is_checked_once_nothing_is_lent(scheduler: Any) -> None:
    scheduler.SLEEP_MS = 0
    scheduler.lend()
    scheduler.on_idle()
    assert scheduler.checked == 0
    scheduler.manager.leases.give_back(1)
    scheduler.manager.leases.take_back()
    scheduler.on_idle()
    assert scheduler.checked == 1


def test_a_server_that_never_sleeps_needs_no_waking(scheduler: Any) -> None:
    scheduler.idle_sleeper = None
    scheduler.lend()
    scheduler.on_idle()
    assert scheduler.slept == 1
