"""How large a request may be. Checked before or while it is parsed: no client can make the router work for long.

One class for two readers: fleet.toml's `[router.limits]` and the router's own configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from psserve.contracts.tables import Count, Seconds, SettingsTable

Weight = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


class QueueLimits(SettingsTable):
    """Limits of waiting: who, how many, how long."""

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


class BreakerLimits(SettingsTable):
    """When a server that answers connections gets no more requests all the same."""

    failures: Count = 10
    """Failed requests in a row after which it is left alone. Requests that were the client's fault do not count."""
    open_secs: Seconds = 10.0
    """How long it is left alone before a probe may try it."""
    successes: Count = 2
    """Requests that must then succeed, one at a time, before it gets all its requests again."""
    stall_secs: Seconds = 30.0
    """A server that has requests and shows no sign of work for so long gets no new ones until it answers a probe."""


class RequestLimits(SettingsTable):
    """Limits of one request. What is beyond a limit is refused with a 4xx that names it."""

    connections: Count = 4096
    """Open at a time, those in their TLS handshake included. One more is answered 503 and closed."""
    idle_secs: Seconds = 75.0
    """How long a connection may take to send a whole header, counted from its opening or from the last answer."""
    header_bytes: Annotated[int, Field(ge=1024)] = 16_384
    """All header fields together, and the request line."""
    headers: Annotated[int, Field(ge=16)] = 100
    """Number of header fields."""
    body_secs: Seconds = 60.0
    """How long a body may take to arrive, and an answer that is no stream to be taken."""
    body_bytes: Annotated[int, Field(ge=1024)] = 8 * 2**20
    """Size of a body, whether or not its header says it."""
    depth: Annotated[int, Field(ge=8, le=200)] = 64
    """Levels of lists and objects in a body, and in a JSON schema that is sent as text. orjson writes 254 levels, and
    the servers' form of a body has a few more than the client's."""
    containers: Annotated[int, Field(ge=16)] = 100_000
    """Lists and objects in a body."""
    elements: Annotated[int, Field(ge=16)] = 1_000_000
    """Values in a body's lists and objects; token ids count."""
    messages: Count = 4096
    """Messages of a chat."""
    tools: Count = 128
    """Tools offered to a chat."""
    choices: Count = 128
    """Answers to one request: prompts times `n`."""
    stops: Count = 16
    """Stop strings."""
    logit_bias: Count = 1024
    """Entries of logit_bias."""
    grammar_bytes: Count = 65_536
    """Size of a JSON schema, regular expression or grammar."""
    tool_bytes: Count = 262_144
    """Size of the JSON schemas that calls of a chat's tools must follow, all together."""


DEFAULT_LIMITS = RequestLimits()
