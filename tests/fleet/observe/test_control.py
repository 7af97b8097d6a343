"""Which URLs are a fleet's, and what opens its router."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from psserve.fleet.observe.control import Access, access_of, is_at
from psserve.fleet.run.state import FleetState, ProcessId


@pytest.mark.parametrize(
    ("known", "asked", "is_its"),
    [
        ("https://127.0.0.1:30000", "https://127.0.0.1:30000/", True),
        ("https://127.0.0.1:30000", "https://localhost:30000", True),
        ("https://127.0.0.1:30000", "http://127.0.0.1:30000", False),
        ("https://127.0.0.1:30000", "https://127.0.0.1:30001", False),
        ("https://127.0.0.1:30000", "https://127.0.0.2:30000", False),
        ("https://127.0.0.1:30000", "https://127.0.0.1:30000/other", False),
        ("https://127.0.0.1:30000", "https://127.0.0.1:x", False),
        ("https://0.0.0.0:30000", "https://0.0.0.0:30000", True),
        ("https://0.0.0.0:30000", "https://localhost:30000", True),
        ("https://[::]:30000", "https://[::1]:30000", True),
        ("https://0.0.0.0:30000", "https://10.0.0.7:30000", False),
        ("https://0.0.0.0:30000", "127.0.0.1:30000", False),
    ],
)
def test_a_url_is_the_fleets_if_this_machine_reaches_it_there(known: str, asked: str, is_its: bool) -> None:
    fleet = FleetState(url=known, zoo="z", base="b", supervisor=ProcessId.own(), ready=True, tmp_dir="t", servers=())
    assert is_at(fleet, asked) is is_its


def test_a_fleet_opens_to_its_user_with_its_own_key_unless_one_is_given(tmp_path: Path) -> None:
    (tmp_path / ".run").mkdir()
    assert access_of(tmp_path) == Access()
    told = {"operator_key": "its own", "ssl_certfile": "/c.pem"}
    (tmp_path / ".run" / "router.json").write_text(json.dumps(told))
    assert access_of(tmp_path) == Access("its own", Path("/c.pem"))
    assert access_of(tmp_path, "given") == Access("given", Path("/c.pem"))
