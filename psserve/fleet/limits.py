"""How long a supervisor waits, and how often it tries."""

from __future__ import annotations

from dataclasses import dataclass, field

from psserve.fleet.restarts import RestartPolicy


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
