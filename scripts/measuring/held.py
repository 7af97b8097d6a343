"""How many sessions' contexts a fleet keeps: sessions of 1,500 tokens that take turns over four modules."""

from __future__ import annotations

from pathlib import Path

from psserve.bench.load.options import LoadOptions
from psserve.bench.load.run import run_load
from psserve.bench.record import RequestRecord
from psserve.bench.session import Call, Session, Step
from psserve.bench.systems.fleet import RunningFleet
from psserve.errors import BenchError

MODULES = ("alpha", "beta", "gamma", "delta")
KV_TOKENS = 40_960
"""Of all servers together."""
CONTEXT, PAGE = 2_048, 16
FIRST, LATER, ANSWER, TURNS = 1_400, 24, 8, 4
"""Tokens of a session: 1,500 in the end."""
HELD = 0.9
"""The sessions' contexts stay cached where so much of later turns' prompts is found."""


def session(number: int, turns: int = TURNS) -> Session:
    """One that asks another module each turn."""
    steps = (
        Step(LATER if turn else FIRST, (Call(MODULES[(number + turn) % len(MODULES)], ANSWER),))
        for turn in range(turns)
    )
    return Session(f"session-{number}", "", 0, tuple(steps))


async def cached_part(fleet: RunningFleet, tokenizer: Path, count: int) -> float:
    """Of the prompts of all turns but the first, what part the prefill server had. Raises BenchError."""
    sessions = [session(number) for number in range(count)]
    records = await run_sessions(fleet, tokenizer, sessions, at_once=count, salt=str(count))
    later = [record for record in records if record.step > 0]
    return sum(record.cached_tokens or 0 for record in later) / sum(record.prompt_tokens for record in later)


async def run_sessions(
    fleet: RunningFleet, tokenizer: Path, sessions: list[Session], *, at_once: int, salt: str
) -> list[RequestRecord]:
    """Run them all, with prompts of exact lengths. Raises BenchError where a request failed."""
    options = LoadOptions(concurrency=at_once, api="completions", tokenizer=tokenizer, salt=salt)
    records = await run_load(sessions, dict.fromkeys(MODULES, fleet.url), options)
    if failed := [record.error for record in records if record.error is not None]:
        raise BenchError(f"a request failed: {failed[0]}")
    return records
