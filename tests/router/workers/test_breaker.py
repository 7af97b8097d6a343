"""When a breaker opens and closes. Workers behind one: test_load_faults.py."""

from __future__ import annotations

import pytest

from psserve.contracts.limits import BreakerLimits
from psserve.router.workers.workers import Breaker

LIMITS = BreakerLimits(failures=3, open_secs=1e-9, successes=2)


def opened(limits: BreakerLimits = LIMITS) -> Breaker:
    breaker = Breaker(limits)
    assert [breaker.failed("p") for _ in range(3)] == [False, False, True]
    assert breaker.state == "open"
    return breaker


def test_only_failures_in_a_row_count() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(10):
        breaker.failed("p")
        breaker.failed("p")
        breaker.succeeded()
    assert (breaker.state, breaker.opened) == ("closed", 0)


def test_it_closes_after_a_probe_and_successes() -> None:
    breaker = opened()
    breaker.succeeded()  # began before it opened
    assert breaker.state == "open"
    breaker.probed()
    assert breaker.state == "half-open"
    breaker.succeeded()
    assert breaker.state == "half-open"
    breaker.succeeded()
    assert breaker.state == "closed"


def test_one_failure_on_trial_opens_it_again() -> None:
    breaker = opened()
    breaker.probed()
    assert breaker.failed("p")
    assert (breaker.state, breaker.opened) == ("open", 2)


def test_probes_do_not_disturb_its_rest() -> None:
    breaker = opened(LIMITS.model_copy(update={"open_secs": 1e9}))
    assert breaker.is_resting
    breaker.probed()
    assert breaker.state == "open"


@pytest.mark.parametrize(("partners", "state"), [(("a", "a", "a"), "closed"), (("a", "b", "a"), "open")])
def test_one_partner_alone_cannot_open_the_breaker_of_all(partners: tuple[str, ...], state: str) -> None:
    breaker = Breaker(LIMITS)
    for partner in partners:
        breaker.failed(partner, partners=2)
    assert breaker.state == state
