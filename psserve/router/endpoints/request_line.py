"""What the log says of one request. No text of the client's but its request id, which is checked (see exchange.py)."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from psserve.contracts.router_config import LogFormat
from psserve.router.answers.exchange import Exchange
from psserve.router.observability.metrics import Metrics
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


TEXT = "%(asctime)s %(levelname)s %(message)s"


class JsonFormatter(logging.Formatter):
    """`time` (ISO 8601, UTC), `level`, and the fields of a request (`event` is "request") or a `message`."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        document: dict[str, Any] = {"time": time, "level": record.levelname.lower()}
        if isinstance(record.args, Line):
            document |= {"event": "request", **record.args}
        else:
            document |= {"event": "message", "message": record.getMessage()}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        # ASCII only: no reader can take a character of it for the end of the line.
        return json.dumps(document, default=str)


def write_logs(log_format: LogFormat) -> None:
    """Send this process's log to stderr in that form."""
    formatter = JsonFormatter() if log_format == "json" else logging.Formatter(TEXT)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


_PLAIN = re.compile(r"[^\s\"=\x00-\x1f\x7f-\x9f]+")


class Line(dict[str, Any]):
    """Fields of one line. As text `name=value`, with a dash for what is not known."""

    def __str__(self) -> str:
        return " ".join([f"{name}={_text(value)}" for name, value in self.items()])


def request_line(exchange: Exchange, status: int, code: str, now: float) -> Line:
    """The line of a request that ended `now` (monotonic seconds).

    `status` is the HTTP status, `code` that or the code of an error inside a stream.
    """
    usage = exchange.usage or {}
    return Line(
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


def _text(value: object) -> str:
    """One word, or a JSON string where it is none: a line stays one line, and its fields are found again."""
    if value is None:
        return "-"
    if isinstance(value, (int, float)):
        return str(value)
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
