"""Whether the load generator kept up: how late it sent what was due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psserve.bench.record import RequestRecord
from psserve.bench.serving_metrics import distribution

LATE_MS = 100.0
"""A client whose 95th percentile is later than this distorts what it measures."""
SENT_SHARE = 0.95
"""Of the rate asked for; sessions that were sent more slowly than this make another load than was asked for."""


def client_metrics(records: Sequence[RequestRecord]) -> dict[str, Any]:
    """Lag of the client (sent - due), the rate of sessions asked for and sent, and `warnings` in words."""
    lag = distribution([max(0.0, record.sent_s - record.due_s) for record in records], "client_lag")
    starts = [record for record in records if record.step == 0 and record.call == 0]
    asked, sent = _rate([record.due_s for record in starts]), _rate([record.sent_s for record in starts])
    warnings = []
    if lag["p95_client_lag_ms"] > LATE_MS:
        warnings.append(
            f"the client was the bottleneck: 5% of the requests were sent {lag['p95_client_lag_ms']:.0f} ms late or"
            " more; latencies are not the server's alone: use a lower load, or several clients"
        )
    latest = max((record.sent_s - record.due_s for record in starts), default=0.0)
    if asked and sent and sent < asked * SENT_SHARE and latest * 1000 > LATE_MS:
        warnings.append(f"the client sent {sent:.4g} sessions/s instead of {asked:.4g}: more than this client can send")
    return {**lag, "asked_sessions_per_s": asked, "sent_sessions_per_s": sent, "warnings": warnings}


def _rate(times: Sequence[float]) -> float | None:
    """Starts a second; None where they are too few or all at once."""
    span = max(times) - min(times) if len(times) > 1 else 0.0
    return (len(times) - 1) / span if span > 0 else None
