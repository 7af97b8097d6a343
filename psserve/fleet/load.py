"""What one server is doing at this moment, as it says itself (SGLang 0.5.17 and 0.5.18).

`/v1/loads` is answered from shared memory, also while the scheduler computes. Its hit rate is the last batch's, so that
the totals of `/metrics` are read for those.
"""

from __future__ import annotations

from collections import defaultdict

from pydantic import BaseModel, ValidationError

from psserve.errors import FleetError
from psserve.fleet.http import HttpClient

Totals = defaultdict[tuple[str, str], float]


class Load(BaseModel):
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


def read_load(server: HttpClient, timeout_s: float) -> Load:
    """Ask an SGLang server, with the worker key. Raises FleetError if it does not answer in SGLang's form."""
    body = server.get("/v1/loads?include=core,disagg", timeout_s)
    try:
        ranks = _Loads.model_validate_json(body).loads
    except ValidationError as error:
        raise FleetError(f"{server.url}/v1/loads answered in a form that psserve does not know") from error
    return Load(
        running=sum(rank.num_running_reqs + rank.disaggregation.prefill_inflight_queue_reqs for rank in ranks),
        queued=sum(rank.num_waiting_reqs for rank in ranks),
        kv_tokens=sum(rank.max_total_num_tokens for rank in ranks),
        kv_used_tokens=sum(rank.num_used_tokens for rank in ranks),
    )


def read_totals(server: HttpClient, timeout_s: float) -> Totals:
    """Samples of `/metrics`, summed: (name, its `module` label or "") -> value. Raises FleetError as `read_load`."""
    from prometheus_client.parser import text_string_to_metric_families

    totals: Totals = defaultdict(float)
    text = server.get("/metrics", timeout_s).decode(errors="replace")
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                totals[sample.name, sample.labels.get("module", "")] += sample.value
    except ValueError as error:
        raise FleetError(f"{server.url}/metrics answered in a form that psserve does not know") from error
    return totals
