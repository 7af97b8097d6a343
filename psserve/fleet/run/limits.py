"""How long a supervisor waits, and how often it tries."""

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


@dataclass(frozen=True)
class Limits:
    """The patience of one supervisor."""

    start_timeout_s: float = 300.0
    """For the fleet to become ready, and for the servers of a live change."""
    drain_s: float = 30.0
    """For the router to finish what it serves, and for a server that is replaced or removed."""
    grace_s: float = 5.0
    """For servers after that. They hold nothing worth waiting for, and SGLang may take 20 s to follow a SIGTERM."""
    restarts: RestartPolicy = field(default_factory=RestartPolicy)
