"""How large a request may be. Checked before or while it is parsed: no client can make the router work for long.

One class for two readers: fleet.toml's `[router.limits]` and the router's own configuration.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from psserve.tables import Count, Seconds, Table


class RequestLimits(Table):
    """What is beyond a limit is refused with a 4xx that names it."""

    connections: Count = 4096
    """Open at a time. One more is answered 503 and closed."""
    idle_secs: Seconds = 75.0
    """How long a connection may take to send a whole header, counted from its opening or from the last answer."""
    header_bytes: Annotated[int, Field(ge=1024)] = 16_384
    """All header fields together, and the request line."""
    headers: Annotated[int, Field(ge=16)] = 100
    """Number of header fields."""
    body_secs: Seconds = 60.0
    """How long a body may take to arrive."""
    body_bytes: Annotated[int, Field(ge=1024)] = 8 * 2**20
    """Size of a body, whether or not its header says it."""
    depth: Annotated[int, Field(ge=8, le=512)] = 64
    """Levels of lists and objects in a body, and in a JSON schema that is sent as text."""
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


DEFAULT_LIMITS = RequestLimits()
