"""What the log says of one request. No text of the client's but its request id, which is checked (see exchange.py)."""

from __future__ import annotations

from psserve.router.observability.exchange import Exchange
from psserve.router.observability.log import LogLine


def request_line(exchange: Exchange, status: int, code: str, now: float) -> LogLine:
    """The line of a request that ended `now` (monotonic seconds).

    `status` is the HTTP status, `code` that or the code of an error inside a stream.
    """
    usage = exchange.usage or {}
    return LogLine(
        request=exchange.request_id,
        route=exchange.route,
        module=exchange.module,
        prefill=exchange.prefill,
        decode=exchange.decode,
        routing=None if exchange.outcomes is None else "/".join(exchange.outcomes),
        status=status,
        code=code,
        seconds=_rounded(now - exchange.started),
        queue_s=_between(exchange.accepted, exchange.sent),
        ttft_s=_between(exchange.started, exchange.first_byte),
        tpot_s=_time_per_token(exchange),
        prompt_tokens=usage.get("prompt_tokens"),
        cached_tokens=exchange.cached_tokens,
        shared_tokens=exchange.shared_tokens if usage else None,
        output_tokens=usage.get("completion_tokens"),
        retries=exchange.retries,
        key=exchange.key_name,
        trace=exchange.trace_id,
    )


def _time_per_token(exchange: Exchange) -> float | None:
    """Of a stream of one sequence."""
    if exchange.first_byte is None or len(exchange.sequences) != 1:
        return None
    seconds = exchange.sequences[0].seconds_per_token
    return None if seconds is None else _rounded(seconds)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else _rounded(end - start)


def _rounded(seconds: float) -> float:
    return round(seconds, 6)
