"""What a worker's command line must and must not hold."""

from __future__ import annotations

import pytest

from psserve.engine.arguments import check, role_of
from psserve.engine.settings import Role
from psserve.errors import UsageError

RADIX = "--disaggregation-decode-enable-radix-cache"


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (["--disaggregation-mode", "prefill"], Role.PREFILL),
        (["--port", "1", "--disaggregation-mode=decode"], Role.DECODE),
        (["--disaggregation-mode", "prefill", "--disaggregation-mode", "decode"], Role.DECODE),
    ],
)
def test_the_role_comes_from_sglangs_own_option(arguments: list[str], role: Role) -> None:
    assert role_of(arguments) is role


@pytest.mark.parametrize("arguments", [[], ["--disaggregation-mode"], ["--disaggregation-mode", "null"]])
def test_a_worker_without_a_role_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="disaggregation-mode"):
        role_of(arguments)


@pytest.mark.parametrize("option", ["--speculative-algorithm", "--enable-hierarchical-cache"])
def test_options_that_would_break_the_rule_are_refused_with_the_reason(option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} cannot be used on a decode server of psserve: "):
        check([RADIX, option, "X"], Role.DECODE)


def test_the_base_may_have_a_hierarchical_cache() -> None:
    check(["--enable-hierarchical-cache"], Role.PREFILL)


def test_a_decode_server_needs_its_radix_cache() -> None:
    with pytest.raises(UsageError, match=RADIX):
        check(["--port", "1"], Role.DECODE)
