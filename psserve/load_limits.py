"""How much the router lets in at a time, and when it stops trusting a server.

One class for two readers: fleet.toml's `[router.queue]` and `[router.breaker]`, and the router's own configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from psserve.tables import Count, Seconds, Table

Weight = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


class QueueLimits(Table):
    """Who waits, how many, how long."""

    module_requests: Count = 1024
    """Prompts of one module that may wait. One more is answered 429."""
    prefill_requests: Count = 4096
    """Prompts of all modules together that may wait, for each prefill server that serves."""
    wait_secs: Seconds = 300.0
    """Longest wait. Who waited so long is answered 408."""
    window_requests: Annotated[int, Field(ge=2)] = 128
    """Prompts sent to a prefill server and not computed yet, at most. What is beyond them waits here, where modules
    take turns. No module may have more than half of them."""
    window_tokens: Count = 32_768
    """The same in tokens: a server that has so many to compute gets no more."""
    weights: Mapping[str, Weight] = Field(default_factory=dict)
    """Shares of the modules when they compete for the prefill servers, by name. Left out: 1."""


class BreakerLimits(Table):
    """When a server that answers connections gets no more requests all the same."""

    failures: Count = 10
    """Failed requests in a row after which it is left alone. Requests that were the client's fault do not count."""
    open_secs: Seconds = 10.0
    """How long it is left alone before a probe may try it."""
    successes: Count = 2
    """Requests that must then succeed, one at a time, before it gets all its requests again."""
    stall_secs: Seconds = 30.0
    """A server that has requests and shows no sign of work for so long gets no new ones until it answers a probe."""
