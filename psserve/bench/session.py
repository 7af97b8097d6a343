"""What an agent session asks for: known before the run, the same for every system and for the simulator.

A session's context only grows. Each step adds tokens to it (a tool's result, the user's next message), then calls one
module or several at once over the same context; the answer of the step's first call joins the context.
"""

from __future__ import annotations

from dataclasses import dataclass

BLOCK_TOKENS = 512
"""Of Mooncake's traces."""


@dataclass(frozen=True)
class Call:
    """One request of a session."""

    module: str
    output_tokens: int
    """Exactly so many are generated: every system does the same work."""


@dataclass(frozen=True)
class Step:
    """Calls that are made at once over the same context."""

    new_tokens: int
    """What joins the context before the calls."""
    calls: tuple[Call, ...]
    delay_s: float = 0.0
    """Between the last answer of the step before and these calls: a tool at work, or a person thinking."""
    blocks: tuple[int, ...] = ()
    """From a trace: names of the blocks that the new tokens consist of. Blocks of one name are the same text, whichever
    session they are in. Empty: a text that no other step has."""
    block_tokens: int = BLOCK_TOKENS
    """Length of each of them; the last one may be cut."""


@dataclass(frozen=True)
class Session:
    """One agent's work on one task."""

    id: str
    system: str
    """Names the system prompt; sessions with the same name share it."""
    system_tokens: int
    steps: tuple[Step, ...]
    start_s: float | None = None
    """Arrival after the start of the run in an open loop; None in a closed loop, where a session starts when another
    one has ended."""
