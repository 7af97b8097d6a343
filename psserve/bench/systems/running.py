"""A system that serves: where its modules are asked, and what its servers say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psserve.bench.systems.counters import Counters, read_counters
from psserve.bench.systems.server import Server


@dataclass(frozen=True, kw_only=True)
class RunningSystem:
    """A system of which every module has answered a request."""

    name: str
    endpoints: Mapping[str, str]
    """Module -> base URL of an OpenAI-compatible server that answers to the module's name."""
    servers: tuple[Server, ...]
    pids: Mapping[str, int]
    """Processes by name whose trees are the system, its router or front included; no two trees overlap."""
    ready_s: float
    """Seconds from its start until it was ready."""
    settings: Mapping[str, Any]
    """How it was started, as JSON, for the record."""
    key: str | None = field(default=None, repr=False)
    """What its servers (not its endpoints) require."""

    def counters(self) -> Counters:
        """What its servers have done since their start. Raises OSError when one does not answer."""
        return read_counters(self.servers, self.pids, self.key)
