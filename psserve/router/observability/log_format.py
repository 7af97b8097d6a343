"""How the router's log is written: as text, or a JSON object a line (`--log-format json`)."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from psserve.router.config import LogFormat
from psserve.router.observability.request_line import Line

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
