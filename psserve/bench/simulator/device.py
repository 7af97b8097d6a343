"""What computes: work of one server after another, or of several servers that share a GPU or a few CPU cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import simpy

Then = Callable[[], None]


def after(clock: simpy.Environment, seconds: float, then: Then) -> None:
    """Call `then` in `seconds`. Of two calls due at once, the one that was asked for first comes first."""
    callbacks = cast("list[Callable[[simpy.Event], None]]", clock.timeout(seconds).callbacks)
    callbacks.append(lambda _: then())


@dataclass(eq=False, slots=True)
class Work:
    """Something that a device is at. `seconds`: what it takes at full speed; `done_s`: how much of that is done."""

    seconds: float
    then: Then
    done_s: float = 0.0


class Device:
    """Works on all it was given at once, at most `slots` at full speed; more than that share them evenly."""

    def __init__(self, clock: simpy.Environment, slots: float = 1) -> None:
        self.busy_s = 0.0
        """Full-speed seconds of work done."""
        self._clock = clock
        self._slots = slots
        self._active: list[Work] = []
        self._settled_s = 0.0
        self._plan = 0

    def run(self, seconds: float, then: Then) -> Work:
        """Begin work that calls `then` when done."""
        self._settle()
        work = Work(seconds, then)
        self._active.append(work)
        self._replan()
        return work

    def progress(self, work: Work) -> float:
        """Full-speed seconds that are done of `work`."""
        self._settle()
        return work.done_s

    def trim(self, work: Work, seconds: float) -> None:
        """`work` ends after `seconds` of full speed, not before what is done of it."""
        self._settle()
        work.seconds = seconds
        self._replan()

    def _rate(self) -> float:
        """At which each is worked on; 1 is full speed."""
        count = len(self._active)
        return 1.0 if count <= self._slots else self._slots / count

    def _settle(self) -> None:
        now = self._clock.now
        if self._active and now > self._settled_s:
            done = (now - self._settled_s) * self._rate()
            for work in self._active:
                work.done_s += done
            self.busy_s += done * len(self._active)
        self._settled_s = now

    def _replan(self) -> None:
        """One event for what ends first; those planned before are void."""
        self._plan += 1
        if not self._active:
            return
        plan, first = self._plan, self._active[0] if len(self._active) == 1 else min(self._active, key=_left)
        after(self._clock, max(0.0, _left(first)) / self._rate(), lambda: self._end(plan, first))

    def _end(self, plan: int, work: Work) -> None:
        if plan != self._plan:
            return
        self._settle()
        self._active.remove(work)
        self._replan()
        work.then()


def _left(work: Work) -> float:
    return work.seconds - work.done_s
