"""The end of a request: its metrics, its line in the log, its place on the dashboard."""

from __future__ import annotations

import logging
from time import monotonic

from psserve.router.exchange import Exchange
from psserve.router.metrics import Metrics
from psserve.router.observability.request_line import request_line
from psserve.router.state import RouterState

log = logging.getLogger("psserve.router")


def record(state: RouterState, exchange: Exchange, status: int, code: str) -> None:
    """Take note of a request that was answered with `status`. Endpoints that only tell are counted, not logged.

    `code` is the status, or the code of an error inside a stream.
    """
    now = monotonic()
    state.metrics.requests.labels(exchange.module, exchange.route, code).inc()
    if exchange.route == "-":
        return
    state.activity.end(exchange, code, now)
    state.metrics.duration.labels(exchange.module, exchange.route).observe(now - exchange.started)
    _record_generation(state.metrics, exchange)
    log.info("%s", request_line(exchange, status, code, now))


def _record_generation(metrics: Metrics, exchange: Exchange) -> None:
    module = exchange.module
    if (usage := exchange.usage) is not None:
        metrics.usage(module, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"])
        metrics.sequences.ended(module, exchange.sequences, streamed=exchange.first_byte is not None)
    if exchange.first_byte is not None:
        metrics.ttft.labels(module).observe(exchange.first_byte - exchange.started)
    if exchange.overhead_s is not None:
        metrics.overhead.labels(module).observe(exchange.overhead_s)
