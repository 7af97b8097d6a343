"""Whether sessions fit into the models that they ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aiohttp

from psserve.bench.load.endpoints import base_url, served_models
from psserve.bench.session import Session


async def context_limits(http: aiohttp.ClientSession, endpoints: Mapping[str, str]) -> dict[str, int]:
    """Module -> most tokens of prompt and answer together, of the modules whose servers say it. Raises BenchError."""
    limits = {}
    for url in {base_url(url) for url in endpoints.values()}:
        served = await served_models(http, url) or {}
        for module, of in endpoints.items():
            limit = served.get(module, {}).get("max_model_len") if base_url(of) == url else None
            if isinstance(limit, int):
                limits[module] = limit
    return limits


def too_long(sessions: Sequence[Session], limits: Mapping[str, int]) -> str | None:
    """One line about sessions that some model cannot read to their end; None if there are none."""
    long = [session for session in sessions if not _fits(session, limits)]
    if not long:
        return None
    most = max(map(_longest, long))
    smallest = min(limits.values())
    return (
        f"{len(long)} of {len(sessions)} sessions are longer (up to {most} tokens) than a model's context"
        f" ({smallest} tokens), and will fail: use shorter ones, or --scale"
    )


def _fits(session: Session, limits: Mapping[str, int]) -> bool:
    context = session.system_tokens
    for step in session.steps:
        context += step.new_tokens
        if any(
            context + call.output_tokens > limits.get(call.module, context + call.output_tokens) for call in step.calls
        ):
            return False
        context += step.calls[0].output_tokens
    return True


def _longest(session: Session) -> int:
    return session.system_tokens + sum(step.new_tokens + step.calls[0].output_tokens for step in session.steps)
