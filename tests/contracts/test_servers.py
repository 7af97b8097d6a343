"""What prefill servers say of what they lend."""

from __future__ import annotations

import pytest

from psserve.contracts.servers import KvLeases, parse_kv_leases

PAGE = b"""\
# HELP psserve_kv_leases Prompts whose KV decode servers read in this server's pool.
# TYPE psserve_kv_leases gauge
psserve_kv_leases 2.0
psserve_kv_lease_tokens{engine="a"} 3000.0
# TYPE psserve_kv_lease_age_seconds gauge
psserve_kv_lease_age_seconds 1.5
sglang:num_running_reqs 7.0
"""


def test_leases_of_a_page() -> None:
    assert parse_kv_leases(PAGE) == KvLeases(count=2, tokens=3000, oldest_s=1.5)


@pytest.mark.parametrize("page", [b"", b"psserve_kv_leases 2.0\n", b"sglang:num_running_reqs 7.0\n"])
def test_a_server_that_lends_nothing_to_anybody(page: bytes) -> None:
    assert parse_kv_leases(page) is None


def test_what_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="many"):
        parse_kv_leases(PAGE.replace(b"2.0", b"many"))
