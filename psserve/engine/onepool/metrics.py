"""What a prefill server's metrics say of what it lends."""

from __future__ import annotations

from psserve.engine.onepool.leases import LeaseTable


class LeaseMetrics:
    """Gauges on the server's page, beside SGLang's own."""

    def __init__(self) -> None:
        from prometheus_client import Gauge  # not before SGLang has set where its processes put their numbers

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, multiprocess_mode="mostrecent")

        self._leases = gauge("psserve_kv_leases", "Prompts whose KV decode servers read in this server's pool.")
        self._tokens = gauge("psserve_kv_lease_tokens", "Their tokens, which cannot be evicted.")
        self._age = gauge("psserve_kv_lease_age_seconds", "Age of the oldest of them.")

    def show(self, leases: LeaseTable, now: float) -> None:
        """Set them. `now`: by the clock of the leases."""
        self._leases.set(len(leases))
        self._tokens.set(leases.tokens)
        self._age.set(leases.oldest_s(now))
