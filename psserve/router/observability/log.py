"""The router's log: text or one JSON object a line, and the line of each request.

No text can break a line in two, and none of it is the client's but the request id, which is checked (see exchange.py).
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

from psserve.contracts.router_config import LogFormat
from psserve.router.observability.exchange import Exchange

TEXT_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_PLAIN = re.compile(r"[^\s\"=\x00-\x1f\x7f-\x9f]+")


class JsonFormatter(logging.Formatter):
    """`time` (ISO 8601, UTC), `level`, and the fields of a request (`event` is "request") or a `message`."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        document: dict[str, Any] = {"time": time, "level": record.levelname.lower()}
        if isinstance(record.args, LogLine):
            document |= {"event": "request", **record.args}
        else:
            document |= {"event": "message", "message": record.getMessage()}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        # ASCII only: no reader can take a character of it for the end of the line.
        return json.dumps(document, default=str)


def write_logs(log_format: LogFormat) -> None:
    """Send this process's log to stderr in that form."""
    formatter = JsonFormatter() if log_format == "json" else logging.Formatter(TEXT_FORMAT)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class LogLine(dict[str, Any]):
    """Fields of one line. As text `name=value`, with a dash for what is not known."""

    def __str__(self) -> str:
        return " ".join([f"{name}={_text(value)}" for name, value in self.items()])


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
    """Seconds for a token, of a stream of one sequence."""
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
