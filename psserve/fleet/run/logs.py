"""Finding in a server's log why it ended."""

from __future__ import annotations

import os
import re
from pathlib import Path

_TAIL_BYTES = 64 * 1024
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ERROR = re.compile(
    r"^(psserve: error: |[\w.]*(Error|Exception|Exit|Missing|Unsupported\w+)\b(: |$))|: error: | ERROR "
)


def tail(log: Path, lines: int = 12, since: int = 0) -> list[str]:
    """The last lines from byte `since` on that say something; none if the log cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode(errors="replace").replace("\0", "")  # NULs: holes
    except OSError:
        return []
    said = [_ANSI.sub("", line).rstrip() for line in text.splitlines()]
    return [line for line in said if line][-lines:]


def last_error(log: Path, since: int = 0) -> str:
    """The last line from byte `since` on that names an error, or else the last line."""
    lines = tail(log, 400, since)
    errors = [line for line in lines if _ERROR.search(line)]
    return (errors or lines or ["it wrote no log"])[-1].strip()
