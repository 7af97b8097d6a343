"""What servers of a zoo took on GPUs, measured when a fleet was first ready: it corrects the estimate of allowance.py.

`.run/measured.json` has, for each kind of server (Allowance.kind), the bytes that one took on each of its GPUs beside
weights and KV cache, the most that was seen. A server that has only just come up has not computed its largest batch:
plans add the estimate of activations. Without the file, or where it has no such server, the estimate is all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson

from psserve.fleet.plan.layout import measured_path
from psserve.zoo.disk.storage import write_atomically

ABOVE = 1.1
"""What a server is counted with, of what was measured: allocators keep a little more while it serves."""


def read_measured(run: Path) -> dict[str, int]:
    """Kind -> bytes that a server is counted with on each of its GPUs."""
    return {kind: int(count * ABOVE) for kind, count in _read(run).items()}


def note_measured(run: Path, found: Mapping[str, int]) -> None:
    """Keep these measurements where they are larger than those before. Raises OSError."""
    known = _read(run)
    more = {kind: count for kind, count in found.items() if count > known.get(kind, 0)}
    if more:
        document = orjson.dumps(known | more, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        write_atomically(measured_path(run), document)


def _read(run: Path) -> dict[str, int]:
    """What the file says; nothing where it is missing or damaged: it can be measured again."""
    try:
        known = orjson.loads(measured_path(run).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    whole = isinstance(known, dict) and all(type(count) is int and count > 0 for count in known.values())
    return known if whole else {}
