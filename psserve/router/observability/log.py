"""The form of the router's log: text, or one JSON object a line. No text can break a line in two."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

from psserve.contracts.router_config import LogFormat

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


def _text(value: object) -> str:
    """One word, or a JSON string where it is none: a line stays one line, and its fields are found again."""
    if value is None:
        return "-"
    if isinstance(value, (int, float)):
        return str(value)
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
