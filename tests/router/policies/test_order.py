"""Of servers that are equal in all else a policy takes the first it is given."""

from __future__ import annotations

import pytest

from psserve.router.policies import Prompt, Request, make_policy, rotated

SERVERS = ["a", "b", "c"]


@pytest.mark.parametrize("policy", ["prefix", "round-robin", "least-loaded"])
def test_routers_that_begin_elsewhere_choose_other_servers(policy: str) -> None:
    request = Request(Prompt((), 10, 16), "session")
    first = [
        make_policy(policy, 1_000).choose(request, rotated(SERVERS, number)).server  # type: ignore[arg-type]
        for number in range(4)
    ]
    assert first == ["a", "b", "c", "a"]
