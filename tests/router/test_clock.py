"""F32: a clock that jumps moves no deadline, queue, breaker or probe of the router's, for nothing there looks at it."""

from __future__ import annotations

import re
from pathlib import Path

ROUTER = Path(__file__).parents[2] / "psserve" / "router"
WALL_CLOCK = re.compile(r"\btime\.time\b|from time import .*\btime\b|\bdatetime\.(now|today|utcnow)\b")


def test_the_router_reads_no_clock_that_can_jump() -> None:
    sources = sorted(ROUTER.rglob("*.py"))
    assert sources
    assert not [str(path) for path in sources if WALL_CLOCK.search(path.read_text())]
