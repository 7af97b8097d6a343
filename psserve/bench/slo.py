"""A service level objective: what a request must keep to be a good one, and how many did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from psserve.bench.record import RequestRecord, seconds_per_token
from psserve.errors import UsageError


@dataclass(frozen=True)
class Slo:
    """Limits in milliseconds, each by its definition in the result line; None where nothing is asked."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    @classmethod
    def parse(cls, text: str) -> Slo:
        """`ttft=2000,tpot=50,e2e=30000`, any of the three. Raises UsageError."""
        known = [field.name for field in fields(cls)]
        limits: dict[str, float] = {}
        for part in text.split(","):
            name, _, value = part.strip().partition("=")
            if name not in known or name in limits:
                raise UsageError(f"--slo {text}: give each of {', '.join(known)} at most once, as in ttft=2000,tpot=50")
            try:
                limits[name] = float(value)
            except ValueError:
                raise UsageError(f"--slo {text}: {name} must be milliseconds, not {value!r}") from None
            if not 0 < limits[name] < float("inf"):
                raise UsageError(f"--slo {text}: {name} must be above 0")
        return cls(**limits)

    def met(self, record: RequestRecord) -> bool:
        """Whether a request kept all limits; a failed one never does."""
        if record.error is not None or record.first_s is None:
            return False
        took = {
            "ttft": record.first_s - record.sent_s,
            "tpot": seconds_per_token(record) or 0.0,  # an answer of one token has none to wait for
            "e2e": record.done_s - record.sent_s,
        }
        limits = {field.name: getattr(self, field.name) for field in fields(self)}
        return all(limit is None or took[name] * 1000 <= limit for name, limit in limits.items())

    def report(self, records: Sequence[RequestRecord], duration_s: float) -> dict[str, object]:
        """Goodput: good requests a second, and their share of all that were sent."""
        good = sum(map(self.met, records))
        return {
            "slo_ms": {field.name: getattr(self, field.name) for field in fields(self)},
            "good_requests": good,
            "goodput": good / duration_s if duration_s else 0.0,
            "good_request_fraction": good / len(records) if records else 0.0,
        }
