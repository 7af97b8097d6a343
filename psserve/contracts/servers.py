"""What is said of servers: by the router under `/workers`, and by SGLang under `/v1/loads` (0.5.17 to 0.5.23).

The latter tells of requests and KV slots, from shared memory, also while the scheduler computes.
"""

from __future__ import annotations

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


LOADS_PATH = "/v1/loads?include=core,disagg"


class ServerLoad(BaseModel):
    """Requests and KV slots of one server."""

    running: int
    """Requests that it computes, or whose KV cache it is sending."""
    queued: int
    kv_tokens: int
    """Size of its KV pool, in tokens."""
    kv_used_tokens: int
    """Of these, held by requests. What the cache keeps for later requests gives way, and is not counted."""


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
