"""Where the base writes the KV of answers too, no answer is read again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from psserve.bench.session import Call, Session, Step
from psserve.bench.simulator.simulation import simulate
from psserve.errors import UsageError
from tests.bench.simulator.sessions import COSTS, MODULES, agents, setup

NEW, ANSWER, TURNS = 320, 160, 5


def conversations(count: int) -> Iterator[Session]:
    """Of modules in turns, with answers of several pages."""
    steps = tuple(Step(NEW, (Call(MODULES[turn % 4], ANSWER),)) for turn in range(TURNS))
    return (Session(f"s{number}", "none", 0, steps) for number in range(count))


def test_only_what_is_new_is_computed() -> None:
    plain, kept = (
        simulate(setup(page_size=16, answers_by_base=kept), conversations(1), 1).counters for kept in (False, True)
    )
    answers = (TURNS - 1) * ANSWER
    assert plain.prompt_tokens == kept.prompt_tokens
    # Both leave an unfinished page a turn; of an answer the last token has no KV, and its page is computed again.
    assert plain.computed_tokens - kept.computed_tokens == pytest.approx(answers, abs=16 * TURNS)
    assert kept.computed_tokens >= TURNS * NEW - 1


def test_the_module_that_wrote_an_answer_gets_none_of_it() -> None:
    alone = [Session("s", "none", 0, (Step(NEW, (Call("a", ANSWER),)), Step(NEW, (Call("a", ANSWER),))))]
    plain, kept = (simulate(setup(page_size=16, answers_by_base=kept), alone, 1).counters for kept in (False, True))
    assert kept.decode_cached_tokens - plain.decode_cached_tokens == pytest.approx(ANSWER, abs=16)


def test_answers_travel_to_the_prefill_server_instead_of_being_computed() -> None:
    sent = [
        simulate(setup(page_size=16, answers_by_base=kept), conversations(1), 1).counters.kv_bytes
        for kept in (False, True)
    ]
    assert sent[1] - sent[0] == pytest.approx(TURNS * ANSWER * COSTS.kv_bytes, abs=2 * 16 * TURNS * COSTS.kv_bytes)


def test_under_load_sessions_are_sooner_over_and_no_page_is_lost() -> None:
    plain, kept = (
        simulate(setup(prefill=1, kv_tokens=20_000, answers_by_base=kept), agents(40, seed=3), 12)
        for kept in (False, True)
    )
    assert kept.counters.computed_tokens < plain.counters.computed_tokens
    assert kept.duration_s < plain.duration_s
    assert kept.counters.requests == plain.counters.requests


def test_other_systems_have_no_such_answers() -> None:
    with pytest.raises(UsageError, match="simulated for `shared` alone, not for `one-pool`"):
        setup("one-pool", answers_by_base=True)
