"""JSON files that come from outside, read with a limit and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from psserve.errors import IncompatibleCheckpoint

MAX_BYTES = 64 << 20


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint, {} if there is no such file."""
    if not path.exists():
        return {}
    if path.stat().st_size > MAX_BYTES:
        raise IncompatibleCheckpoint(f"{path}: larger than {MAX_BYTES >> 20} MiB: not what it should be")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise IncompatibleCheckpoint(f"{path}: not JSON ({error}): copy it again") from None
    if not isinstance(document, dict):
        raise IncompatibleCheckpoint(f"{path}: expected a JSON object")
    return document
