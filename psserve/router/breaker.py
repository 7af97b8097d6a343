"""A circuit breaker: a worker that fails every request gets none for a while, then a few, then all again.

closed --failures in a row--> open --open_secs, then a probe--> half-open --successes--> closed
                                ^--------------- a failure ----------'
"""

from __future__ import annotations

from time import monotonic
from typing import Literal

from psserve.load_limits import BreakerLimits

State = Literal["closed", "half-open", "open"]
STATES: tuple[State, ...] = ("closed", "half-open", "open")
"""In the order of their numbers in metrics."""


class Breaker:
    """Of one worker. Times are monotonic seconds."""

    def __init__(self, limits: BreakerLimits | None = None) -> None:
        self._limits = limits or BreakerLimits()
        self.state: State = "closed"
        self.opened = 0
        """How often."""
        self._failures = 0
        self._successes = 0
        self._until = 0.0
        self._partners: set[str] = set()

    def failed(self, partner: str, partners: int = 1) -> bool:
        """A request failed here, paired with `partner`. True if that opens the breaker.

        Failures must have met `partners` different ones: a worker that everybody is paired with must not be left
        alone for what one of its partners does to it.
        """
        self._successes = 0
        self._failures += 1
        self._partners.add(partner)
        enough = self._failures >= self._limits.failures and len(self._partners) >= partners
        if self.state == "open" or not (enough or self.state == "half-open"):
            return False
        self.state = "open"
        self.opened += 1
        self._until = monotonic() + self._limits.open_secs
        return True

    def succeeded(self) -> None:
        """A request that was let in came to its end. Late ones from before it opened prove nothing."""
        if self.state == "open":
            return
        self._failures = 0
        self._partners.clear()
        self._successes += 1
        if self._successes >= self._limits.successes:
            self.state = "closed"

    @property
    def is_resting(self) -> bool:
        """Whether not even a probe should go there."""
        return self.state == "open" and monotonic() < self._until

    def probed(self) -> None:
        """A probe went through."""
        if self.state == "open" and not self.is_resting:
            self.state, self._successes = "half-open", 0
