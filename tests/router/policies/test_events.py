"""Holdings that follow KV events: what is told, what is still coming, and what is predicted where nothing is told."""

from __future__ import annotations

from typing import Any

import pytest

from psserve.router.policies import Choice
from psserve.router.policies.events import UNTOLD_LIMIT, EventTree, FollowedHoldings
from psserve.router.policies.index import PredictedHoldings
from tests.router.policies.placing import BLOCK, request, text

PAGES = [11, 12, 13]
TOKENS = text(1, 3 * BLOCK)


def stored(pages: list[int] = PAGES, parent: int | None = None, tokens: list[int] = TOKENS, **fields: Any) -> list[Any]:
    fields = {"size": BLOCK, "lora": None, "medium": "GPU"} | fields
    return ["BlockStored", pages, parent, tokens, *fields.values()]


def matched(tree: EventTree, tokens: list[int] = TOKENS) -> int:
    return tree.match(request(tokens).prompt.blocks)


@pytest.fixture
def tree() -> EventTree:
    tree = EventTree(BLOCK)
    tree.apply(stored())
    return tree


@pytest.fixture
def holdings() -> FollowedHoldings:
    return FollowedHoldings(BLOCK, PredictedHoldings(capacity=10_000))


def follow(holdings: FollowedHoldings, *events: list[Any]) -> EventTree:
    tree = holdings.renew("a")
    tree.is_complete = True
    for event in events:
        tree.apply(event)
    return tree


def held(holdings: FollowedHoldings, tokens: list[int] = TOKENS) -> int:
    return holdings.match("a", request(tokens).prompt)


def test_pages_enter_follow_each_other_and_leave(tree: EventTree) -> None:
    assert matched(tree) == 3
    more = text(1, 5 * BLOCK)
    tree.apply(stored([14, 15], parent=13, tokens=more[3 * BLOCK :]))
    assert matched(tree, more) == 5
    tree.apply(["BlockRemoved", [14, 15, 13], "GPU"])
    assert matched(tree, more) == 2
    tree.apply(["AllBlocksCleared"])
    assert matched(tree) == len(tree) == 0


@pytest.mark.parametrize(
    "event",
    [
        stored([21], parent=99, tokens=TOKENS[:BLOCK]),
        stored([21], tokens=text(2, BLOCK), medium="CPU_PINNED"),
        [*stored([21], tokens=text(2, BLOCK)), {"cache_salt": "s"}],
        stored([21], tokens=text(2, 2 * BLOCK), size=2 * BLOCK),
        ["BlockRemoved", [11], "CPU_PINNED"],
        ["BlockRemoved", [99], "GPU"],
        ["SomethingNew", 1, 2],
    ],
    ids=[
        "unknown parent",
        "other memory",
        "salted",
        "other page size",
        "left other memory",
        "unknown page",
        "new kind",
    ],
)
def test_events_that_say_nothing_of_this_tree_change_nothing(tree: EventTree, event: list[Any]) -> None:
    tree.apply(event)
    assert matched(tree) == len(tree) == 3


def test_a_server_whose_events_are_not_complete_is_predicted(holdings: FollowedHoldings) -> None:
    holdings.assigned(Choice(request(TOKENS), "a", "new", 0))
    assert held(holdings) == 3
    holdings.renew("a").apply(stored([21], tokens=text(2, BLOCK)))
    assert (held(holdings), held(holdings, text(2, BLOCK))) == (3, 0)


def test_a_server_that_emptied_its_cache_is_known_from_then_on(holdings: FollowedHoldings) -> None:
    holdings.assigned(Choice(request(TOKENS), "a", "new", 0))
    holdings.finished(Choice(request(TOKENS), "a", "new", 0), served=True)
    tree = holdings.renew("a")
    tree.apply(["AllBlocksCleared"])
    holdings.told("a")
    assert held(holdings) == 0


def test_told_evictions_count_and_predictions_do_not(holdings: FollowedHoldings) -> None:
    tree = follow(holdings, stored())
    choice = Choice(request(TOKENS), "a", "hit", 0, matched=3)
    holdings.assigned(choice)
    holdings.finished(choice, served=True)
    tree.apply(["BlockRemoved", [12, 13], "GPU"])
    holdings.told("a")
    assert held(holdings) == 1


def test_what_is_being_computed_counts_until_events_tell_of_it(holdings: FollowedHoldings) -> None:
    tree = follow(holdings)
    first, second = (Choice(request(TOKENS), "a", "new", 0) for _ in range(2))
    holdings.assigned(first)
    holdings.assigned(second)
    assert held(holdings) == 3
    holdings.finished(first, served=True)
    holdings.finished(second, served=True)
    assert held(holdings) == 3
    tree.apply(stored(PAGES[:2], tokens=TOKENS[: 2 * BLOCK]))
    holdings.told("a")
    assert held(holdings) == 2


def test_what_failed_is_not_coming(holdings: FollowedHoldings) -> None:
    follow(holdings)
    choice = Choice(request(TOKENS), "a", "new", 0)
    holdings.assigned(choice)
    holdings.finished(choice, served=False)
    assert held(holdings) == 0


def test_a_forgotten_server_is_followed_anew(holdings: FollowedHoldings) -> None:
    tree = follow(holdings, stored())
    assert holdings.is_current("a", tree)
    holdings.forget("a")
    assert not holdings.is_current("a", tree)
    assert held(holdings) == 0


def test_silent_servers_cost_bounded_memory(holdings: FollowedHoldings) -> None:
    follow(holdings)
    for number in range(UNTOLD_LIMIT + 10):
        choice = Choice(request(text(number, BLOCK)), "a", "new", 0)
        holdings.assigned(choice)
        holdings.finished(choice, served=True)
    assert sum(held(holdings, text(number, BLOCK)) for number in range(UNTOLD_LIMIT + 10)) == UNTOLD_LIMIT
