"""Where the time of one request went: the bars of the dashboard's waterfall."""

from __future__ import annotations

from psserve.router.exchange import Exchange

Phase = tuple[str, float]
"""Name and seconds."""


def phases(exchange: Exchange, now: float) -> list[Phase]:
    """What the request did, one thing after the other, until `now`.

    route: the body read and checked, and the module chosen; queue: until workers took it; prefill: until the base had
    computed the prompt and handed its KV over; first: the module's first step; decode: the rest of the answer.
    Of an answer that is not streamed nobody sees its first step: `answer` is both. `open`: no worker has answered.
    A request of several sequences is shown by the one that was answered first.
    """
    found: list[Phase] = []
    since = exchange.started
    for name, end in _ends(exchange, now):
        end = max(end, since)
        found.append((name, end - since))
        since = end
    return found


def _ends(exchange: Exchange, now: float) -> list[tuple[str, float]]:
    if exchange.accepted is None:
        return [("route", now)]
    if exchange.sent is None:
        return [("route", exchange.accepted), ("open", now)]
    begun = [("route", exchange.accepted), ("queue", exchange.sent), ("prefill", exchange.sequences[0].prefilled)]
    if exchange.first_byte is None:
        return [*begun, ("answer", now)]
    return [*begun, ("first", exchange.first_byte), ("decode", now)]
