"""Leases that nobody holds are found, and those of requests are not taken for such."""

from __future__ import annotations

import pytest

from psserve.contracts.servers import KvLeases
from psserve.fleet.observe.lease_checks import check_leases
from psserve.fleet.observe.overview import FleetOverview
from tests.fleet.observe.test_status_table import SERVER, fleet

LONGEST_S = 600.0
PREFILL = SERVER.model_copy(update={"name": "prefill-0", "role": "prefill", "module": None, "running": 0})


def with_leases(leases: KvLeases | None, running: int = 0) -> FleetOverview:
    lender = PREFILL.model_copy(update={"kv_leases": leases})
    reader = SERVER.model_copy(update={"running": running})
    return fleet(lender, reader).model_copy(update={"one_pool": True})


@pytest.mark.parametrize(
    ("leases", "running", "level", "said"),
    [
        (KvLeases(count=0, tokens=0, oldest_s=0), 0, "ok", "prefill-0 lends nothing"),
        (KvLeases(count=1, tokens=1500, oldest_s=9), 1, "ok", "the KV of 1 prompt (1500 tokens), the oldest for 9 s"),
        (KvLeases(count=1, tokens=1500, oldest_s=1), 0, "ok", "the KV of 1 prompt"),
        (KvLeases(count=2, tokens=3000, oldest_s=9), 0, "fail", "2 prompts (3000 tokens), the oldest for 9 s, and no"),
        (KvLeases(count=2, tokens=3000, oldest_s=700), 1, "fail", "no request may take so long (600 s)"),
        (None, 0, "warn", "prefill-0 does not say"),
    ],
)
def test_leases(leases: KvLeases | None, running: int, level: str, said: str) -> None:
    (finding,) = check_leases(with_leases(leases, running), LONGEST_S)
    assert (finding.level, said in finding.found) == (level, True), finding
    assert bool(finding.advice) == (level != "ok")


def test_a_fleet_of_copies_is_not_looked_at() -> None:
    assert check_leases(fleet(PREFILL, SERVER), LONGEST_S) == []
