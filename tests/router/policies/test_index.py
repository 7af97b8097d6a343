"""What servers are thought to hold: never more than they were sent, and never more than fits."""

from __future__ import annotations

from psserve.router.policies import Choice
from psserve.router.policies.index import PredictedHoldings
from tests.router.policies.placing import BLOCK, request, text


def test_each_server_holds_its_own_within_its_capacity() -> None:
    holdings = PredictedHoldings(capacity=5 * BLOCK)
    for number, server in enumerate(("a", "b", "a")):
        holdings.assigned(Choice(request(text(number, 4 * BLOCK)), server, "new", 0))
    held = [
        [holdings.match(server, request(text(n, 4 * BLOCK)).prompt) for n in range(3)] for server in ("a", "b", "c")
    ]
    assert held == [[1, 0, 4], [0, 4, 0], [0, 0, 0]]


def test_after_a_failure_only_what_was_held_before_is_claimed() -> None:
    holdings, asked = PredictedHoldings(capacity=1_000), request(text(1, 8 * BLOCK))
    holdings.assigned(Choice(request(text(1, 3 * BLOCK)), "a", "new", 0))
    choice = Choice(asked, "a", "hit", 0, matched=3)
    holdings.assigned(choice)
    assert holdings.match("a", asked.prompt) == 8
    holdings.finished(choice, served=False)
    assert holdings.match("a", asked.prompt) == 3


def test_a_forgotten_server_holds_nothing() -> None:
    holdings, asked = PredictedHoldings(capacity=1_000), request(text(1, 8 * BLOCK))
    choice = Choice(asked, "a", "new", 0)
    holdings.assigned(choice)
    holdings.forget("a")
    holdings.finished(choice, served=False)
    assert holdings.match("a", asked.prompt) == 0
