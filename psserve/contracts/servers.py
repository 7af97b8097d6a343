"""What is said of servers: by the router under `/workers`, and by SGLang under `/v1/loads` (0.5.17 to 0.5.23).

The latter tells of requests and KV slots, from shared memory, also while the scheduler computes. What a prefill server
lends to decode servers is among its metrics (docs/one-pool.md).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel


class WorkerView(BaseModel):
    """One server as the router sees it. Fields that a newer router adds are passed over."""

    name: str
    state: str
    running: int = 0
    held: int = 0
    """Requests in flight that may still need it."""
    error: str | None = None


class RouterView(BaseModel):
    """The answer of `/workers`."""

    workers: list[WorkerView]
    adapters: dict[str, int] = {}
    """Adapter -> requests in flight that may still need it, where there are any."""
    serial: int = 0
    """Of the configuration that the router follows."""

    @property
    def by_name(self) -> dict[str, WorkerView]:
        return {worker.name: worker for worker in self.workers}


LEASE_METRICS = ("psserve_kv_leases", "psserve_kv_lease_tokens", "psserve_kv_lease_age_seconds")
"""Those of a prefill server with one KV pool: how many, their tokens, the oldest one's age."""


class KvLeases(BaseModel):
    """Prompts whose KV decode servers read in a prefill server's pool, where it cannot be evicted meanwhile."""

    count: int
    tokens: int
    """Of these prompts. What several read counts for each."""
    oldest_s: float

    @classmethod
    def of(cls, samples: Mapping[str, float]) -> KvLeases | None:
        """From the server's metrics, by name. None: it lends nothing to anybody."""
        count, tokens, oldest = map(samples.get, LEASE_METRICS)
        if count is None or tokens is None or oldest is None:
            return None
        return cls(count=int(count), tokens=int(tokens), oldest_s=oldest)


def parse_kv_leases(page: bytes) -> KvLeases | None:
    """The leases on a page of metrics, in Prometheus' text format. Raises ValueError for what is no number there."""
    from prometheus_client.parser import text_string_to_metric_families  # not before SGLang set where its numbers are

    lines = [line for line in page.decode(errors="replace").splitlines() if line.startswith(LEASE_METRICS)]
    families = text_string_to_metric_families("\n".join(lines) + "\n")  # of all the hundreds it would take long
    return KvLeases.of({sample.name: sample.value for family in families for sample in family.samples})


LOADS_PATH = "/v1/loads?include=core,disagg"
METRICS_PATH = "/metrics"


class ServerLoad(BaseModel):
    """Requests and KV slots of one server."""

    running: int
    """Requests that it computes, or whose KV cache it is sending."""
    queued: int
    kv_tokens: int
    """Size of its KV pool, in tokens."""
    kv_used_tokens: int
    """Of these, held by requests. What the cache keeps for later requests gives way, and is not counted."""
    leases: KvLeases | None = None
    """What it lends of them, where decode servers read prompts in its pool."""


class _Disaggregation(BaseModel):
    prefill_inflight_queue_reqs: int = 0


class _Snapshot(BaseModel):
    num_running_reqs: int
    num_waiting_reqs: int
    num_used_tokens: int
    max_total_num_tokens: int
    disaggregation: _Disaggregation = _Disaggregation()


class _Loads(BaseModel):
    loads: list[_Snapshot]


def parse_server_load(body: bytes) -> ServerLoad:
    """The load in the answer `body`. Raises ValueError (pydantic's) when it has not SGLang's form."""
    ranks = _Loads.model_validate_json(body).loads
    return ServerLoad(
        running=sum(rank.num_running_reqs + rank.disaggregation.prefill_inflight_queue_reqs for rank in ranks),
        queued=sum(rank.num_waiting_reqs for rank in ranks),
        kv_tokens=sum(rank.max_total_num_tokens for rank in ranks),
        kv_used_tokens=sum(rank.num_used_tokens for rank in ranks),
    )
