"""Generated sessions."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.bench.session import Session
from psserve.bench.workloads.choice import WorkloadChoice, iterate_sessions, make_sessions, with_single_module
from psserve.bench.workloads.workload import PRESETS, Length, Order, Preset, preset_workload
from psserve.errors import UsageError

MODULES = ("math", "code", "tools", "plan")


def modules_of(session: Session) -> list[str]:
    return [call.module for step in session.steps for call in step.calls]


@settings(deadline=None)
@given(
    st.sampled_from(PRESETS),
    st.integers(),
    st.sampled_from(["round-robin", "random", "zipf:1.5", "code,math"]),
    st.floats(0.01, 2),
    st.sampled_from([None, 3.0]),
)
def test_the_same_parameters_make_the_same_sessions(
    preset: Preset, seed: int, order: str, scale: float, rate: float | None
) -> None:
    arrival: dict[str, Any] = {} if rate is None else {"arrival": "poisson", "sessions_per_s": rate}
    workload = preset_workload(preset, MODULES, seed=seed, order=Order.parse(order), scale=scale, **arrival)
    sessions = list(islice(iterate_sessions(workload), 3))
    assert sessions == list(islice(iterate_sessions(workload), 3))
    assert {call.module for s in sessions for step in s.steps for call in step.calls} <= set(MODULES)
    assert all(
        step.new_tokens >= 1 and call.output_tokens >= 1 for s in sessions for step in s.steps for call in step.calls
    )


def test_a_trace_has_no_parameters_that_it_says_by_itself() -> None:
    with pytest.raises(UsageError, match="a trace says by itself what arrival, sessions_per_s would say"):
        WorkloadChoice(trace=Path("t"), changes={"seed": 2, "arrival": "poisson", "sessions_per_s": 1.0})
    assert WorkloadChoice(trace=Path("t"), changes={"seed": 2}).changes == {"seed": 2}


def test_two_processes_make_equal_sessions() -> None:
    code = (
        "from psserve.bench.workloads.choice import make_sessions;"
        "from psserve.bench.workloads.workload import preset_workload;"
        "rate = {'arrival': 'poisson', 'sessions_per_s': 1.0};"
        "print(make_sessions(preset_workload('reflexion', ('a', 'b'), sessions=3, **rate)))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert told[0]


def test_more_sessions_do_not_change_the_first() -> None:
    few, many = (preset_workload("react", MODULES, sessions=count) for count in (3, 9))
    assert make_sessions(many)[:3] == make_sessions(few)
    assert make_sessions(preset_workload("react", MODULES, sessions=3, seed=2)) != make_sessions(few)


def test_react_calls_one_module_a_turn_over_a_growing_context() -> None:
    session = make_sessions(preset_workload("react", MODULES, sessions=2))[1]
    assert modules_of(session) == ["code", "tools", "plan", "math"] * 2
    assert session.steps[0].delay_s == 0
    assert all(step.delay_s > 0 for step in session.steps[1:])


@pytest.mark.parametrize(("preset", "turns"), [("four-agents-react", 3), ("four-agents-reflexion", 6)])
def test_all_four_agents_act_in_every_turn_with_fixed_lengths_and_without_pauses(preset: Preset, turns: int) -> None:
    first, second = make_sessions(preset_workload(preset, MODULES, sessions=2))
    assert modules_of(first) == list(MODULES) * turns
    assert modules_of(second) == [*MODULES[1:], MODULES[0]] * turns
    assert {(step.new_tokens, step.calls[0].output_tokens, step.delay_s) for step in first.steps} == {(624, 64, 0.0)}


def test_eight_agents_have_as_many_turns_as_four() -> None:
    eight = tuple(f"m{number}" for number in range(8))
    (session,) = make_sessions(preset_workload("four-agents-react", eight, sessions=1))
    assert modules_of(session) == list(eight) * 3


def test_the_papers_hit_ratios_follow_from_the_lengths_of_four_agents() -> None:
    """89% where all agents share a cache, 60% where each finds what it read itself; 40 sessions of 10,000 tokens."""
    (session,) = make_sessions(preset_workload("four-agents-react", MODULES, sessions=1))
    context = shared = own = session.system_tokens
    read = dict.fromkeys(MODULES, session.system_tokens)
    prompts = missed = missed_alone = 0
    for step in session.steps:
        (call,) = step.calls
        context += step.new_tokens
        prompts, missed, missed_alone = prompts + context, missed + context - shared, missed_alone + context - own
        missed_alone += own - read[call.module]
        shared = read[call.module] = own = context
        context += call.output_tokens
    assert 1 - missed / prompts == pytest.approx(0.89, abs=0.01)
    assert 1 - missed_alone / prompts == pytest.approx(0.60, abs=0.02)
    assert context == pytest.approx(10_000, rel=0.02)


def test_icarus_asks_128_sessions_of_hotpotqa_without_pauses() -> None:
    made, usual = (make_sessions(preset_workload(preset, MODULES, sessions=128)) for preset in ("icarus", "hotpotqa"))
    assert make_sessions(preset_workload("icarus", MODULES)) == made
    assert [modules_of(session) for session in made] == [modules_of(session) for session in usual]
    assert not any(step.delay_s for session in made for step in session.steps)


def test_reflexion_judges_every_trial_and_reflects_between_two() -> None:
    workload = preset_workload("reflexion", MODULES, sessions=1, trials=2, turns=Length(3, 3), output=Length(7, 7))
    (session,) = make_sessions(workload)
    answers = [step.calls[0].output_tokens for step in session.steps]
    assert answers == [7, 7, 7, workload.verdict, workload.reflection, 7, 7, 7, workload.verdict]


def test_fanout_asks_all_modules_at_once() -> None:
    session = make_sessions(preset_workload("fanout", MODULES, sessions=1))[0]
    assert all(sorted(call.module for call in step.calls) == sorted(MODULES) for step in session.steps)
    assert [step.calls[0].module for step in session.steps] == list(MODULES)


def test_a_chat_stays_with_its_module() -> None:
    sessions = make_sessions(preset_workload("chat", MODULES, sessions=4))
    assert [set(modules_of(session)) for session in sessions] == [{name} for name in MODULES]


def test_a_single_module_does_the_same_work() -> None:
    sessions = make_sessions(preset_workload("fanout", MODULES, sessions=2))
    single = list(with_single_module(sessions, "math"))
    assert {name for session in single for name in modules_of(session)} == {"math"}
    assert [len(modules_of(session)) for session in single] == [len(modules_of(session)) for session in sessions]


def test_zipf_prefers_the_first_modules_and_random_none() -> None:
    def counts(order: str) -> list[int]:
        sessions = make_sessions(preset_workload("react", MODULES, sessions=200, order=Order.parse(order)))
        asked = [name for session in sessions for name in modules_of(session)]
        return [asked.count(name) for name in MODULES]

    zipf, alike = counts("zipf"), counts("random")
    assert zipf == sorted(zipf, reverse=True)
    assert zipf[0] > 1.5 * zipf[1]
    assert max(alike) < 1.2 * min(alike)


def test_arrivals_have_the_rate_that_was_asked_for() -> None:
    arrivals = {"arrival": "poisson", "sessions_per_s": 4.0}
    starts = [s.start_s or 0.0 for s in make_sessions(preset_workload("chat", MODULES, sessions=2000, **arrivals))]
    assert starts == sorted(starts)
    assert starts[-1] == pytest.approx(500, rel=0.1)
    constant = make_sessions(preset_workload("chat", MODULES, sessions=3, arrival="constant", sessions_per_s=4.0))
    assert [s.start_s for s in constant] == [0.0, 0.25, 0.5]


def test_scale_multiplies_lengths_alone() -> None:
    whole, half = (make_sessions(preset_workload("react", MODULES, sessions=40, scale=scale)) for scale in (1, 0.5))
    assert half[0].system_tokens == 1024
    assert [len(s.steps) for s in half] == [len(s.steps) for s in whole]
    assert [step.delay_s for step in half[0].steps] == [step.delay_s for step in whole[0].steps]
    tokens = [sum(step.new_tokens for s in sessions for step in s.steps) for sessions in (whole, half)]
    assert tokens[1] == pytest.approx(tokens[0] / 2, rel=0.01)


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(0, 1000), st.randoms())
def test_lengths_stay_in_their_range(low: int, more: int, rng: Any) -> None:
    length = Length.parse(f"{low}-{low + more}")
    assert low <= length.draw(rng) <= low + more
    assert Length.parse(str(length)) == length


@pytest.mark.parametrize("text", ["", "x", "-1", "5-3", "1.5", "5~", "5~9", "99999999999", "1-2-3"])
def test_a_length_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^length "):
        Length.parse(text)


@pytest.mark.parametrize(
    "changes", [{"sessions_per_s": 1.0}, {"scale": 0.0}, {"trials": 0}, {"order": Order.parse("x")}]
)
def test_a_workload_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        preset_workload("react", MODULES, **changes)


@pytest.mark.parametrize("text", ["", "zipf:", "zipf:-1", "zipf:x", "a,,b"])
def test_an_order_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--order "):
        Order.parse(text)
