"""Where the time of one request went: the bars of the dashboard's waterfall."""

from __future__ import annotations

from psserve.router.exchange import Exchange

Phase = tuple[str, float]
"""Name and seconds."""


def phases(exchange: Exchange, now: float) -> list[Phase]:
    """What the request did, one thing after the other, until `now`.

    route: the body read and checked, the module and the workers chosen; prefill: until the base had computed the
    prompt; transfer: its KV, and the module's first step; decode: the answer from its first byte on. Of an answer that
    is not streamed nobody sees where its transfer ended: that is `answer` altogether.
    """
    marks: list[tuple[str, float | None]] = [("route", exchange.sent)]
    marks += [("transfer", exchange.first_byte), ("decode", now)] if exchange.first_byte else [("answer", now)]
    found: list[Phase] = []
    since = exchange.started
    for name, mark in marks:
        end = now if mark is None else max(mark, since)
        found.append((name, end - since))
        if mark is None:
            break
        since = end
    return found
