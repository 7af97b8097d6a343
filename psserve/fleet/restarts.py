"""When a dead server is started again, when it is given up, and when one that lives is as good as dead."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RestartPolicy:
    """Wait 1, 2, 4 ... s (at most `longest_s`); give up beyond `limit` ends within `window_s`."""

    limit: int = 5
    window_s: float = 600.0
    first_s: float = 1.0
    longest_s: float = 30.0
    stuck_s: float = 300.0
    """A server that lives, and has not served for so long though others could work with it, is started anew."""


@dataclass
class Restarts:
    """The ends of one server. Times are monotonic seconds."""

    policy: RestartPolicy
    total: int = 0
    """Restarts granted so far."""
    _ends: list[float] = field(default_factory=list)

    def delay(self, now: float) -> float | None:
        """Note that the server ended now. Returns seconds to wait before the restart, None to give up."""
        self._ends = [end for end in self._ends if now - end < self.policy.window_s]
        if len(self._ends) >= self.policy.limit:
            return None
        self._ends.append(now)
        self.total += 1
        return min(self.policy.first_s * 2.0 ** (len(self._ends) - 1), self.policy.longest_s)
