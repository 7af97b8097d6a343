"""A system that serves: where its modules are asked, what its servers say of themselves, and its first requests.

With those, each of its servers has computed once before anything is measured.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psserve.bench.systems.counters import Counters, Server, read_counters
from psserve.errors import StartError

_ROUNDS = 2
_RETRY_S = 0.5
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


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


def warm_up(endpoints: Mapping[str, str], within_s: float, note: Callable[[str], None]) -> None:
    """Have every module answer a short chat. Raises StartError for one that does not in time."""
    deadline = time.monotonic() + within_s
    for _ in range(_ROUNDS):
        for module, url in endpoints.items():
            note(f"warming up {module}")
            _ask(module, url, deadline)


def _ask(module: str, url: str, deadline: float) -> None:
    body = {"model": module, "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 4, "temperature": 0}
    data = json.dumps(body).encode()
    while True:
        request = urllib.request.Request(f"{url}/v1/chat/completions", data, {"Content-Type": "application/json"})
        try:
            with _OPENER.open(request, timeout=max(1.0, deadline - time.monotonic())):
                return
        except OSError as error:  # HTTP errors are among them
            if time.monotonic() > deadline:
                raise StartError(f"module {module} does not answer at {url}: {_reason(error)}") from error
        time.sleep(_RETRY_S)


def _reason(error: OSError) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}: {error.read(300).decode(errors='replace')}"
    return str(error)
