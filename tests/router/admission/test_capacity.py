"""When servers have budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from psserve.contracts.limits import QueueLimits
from psserve.router.admission.capacity import STRIDE, Hold, KvBudget, OutputLengths, PrefillWindow, unshared_tokens
from psserve.router.policies import Prompt


def prompt(*strides: int, tokens: int = 0) -> Prompt:
    """A prompt of strides of 10 tokens, and `tokens` more."""
    blocks = tuple(100 * stride + block for stride in strides for block in range(STRIDE))
    return Prompt(blocks, 10 * len(strides) + tokens, 10 / STRIDE)


def test_prompts_that_begin_alike_are_held_once() -> None:
    budget = KvBudget(100, None)
    shared = prompt(1, 2, 3, 4, 5, 6)
    for _ in range(4):
        assert budget.takes(shared, 10)
        budget.add(shared, 10)
    assert not budget.takes(shared, 10)
    assert not budget.takes(prompt(7, 8, 9), 1)
    budget.remove(shared, 10)
    assert budget.takes(shared, 10)


def test_what_is_larger_than_the_pool_goes_alone() -> None:
    budget = KvBudget(100, None)
    assert budget.takes(prompt(1), 1000)
    budget.add(prompt(1), 1000)
    assert not budget.takes(prompt(2), 1)


def test_a_decode_server_gets_a_few_more_than_it_runs() -> None:
    budget = KvBudget(None, 8)
    for _ in range(12):
        assert budget.takes(prompt(), 1)
        budget.add(prompt(), 1)
    assert not budget.takes(prompt(), 1)


@given(st.lists(st.lists(st.integers(0, 5), max_size=4, unique=True).map(tuple), max_size=8))
def test_an_empty_budget_is_as_it_was(prompts: list[tuple[int, ...]]) -> None:
    budget = KvBudget(10, None)
    for blocks in prompts:
        budget.add(prompt(*blocks), 3)
    for blocks in prompts:
        budget.remove(prompt(*blocks), 3)
    budget.add(prompt(), 0)
    assert budget.takes(prompt(9), 0)
    assert not budget.takes(prompt(9), 1)


def test_unshared_are_the_answer_and_the_end_of_the_prompt() -> None:
    assert unshared_tokens(prompt(1, 2, tokens=7), 30) == 37


def test_a_module_gets_half_of_a_prefill_window() -> None:
    window = PrefillWindow(QueueLimits(window_requests=4, window_tokens=100))
    for _ in range(2):
        assert window.takes("a")
        window.add("a", 10)
    assert not window.takes("a")
    assert window.takes("b")
    window.add("b", 90)
    assert not window.takes("c")
    window.remove("b", 90)
    assert window.takes("c")


def test_answers_are_expected_to_be_as_long_as_they_were() -> None:
    outputs = OutputLengths()
    assert outputs.expected("m", 4096) == 1024
    for _ in range(300):
        outputs.learn("m", 50)
    assert 100 <= outputs.expected("m", 4096) <= 110
    assert outputs.expected("m", 16) == 16
    assert outputs.expected("other", 4096) == 1024


def test_the_first_guess_is_a_part_of_a_small_pool_and_gives_way_to_what_was_seen() -> None:
    outputs = OutputLengths()
    assert outputs.expected("m", 4096, pool=1024) == 128
    assert outputs.expected("m", 4096, pool=1 << 20) == 1024
    outputs.learn("m", 400)
    assert outputs.expected("m", 4096, pool=1024) == (128 + 800) / 2
    for _ in range(300):
        outputs.learn("m", 400)
    assert 790 <= outputs.expected("m", 4096, pool=1024) <= 800


def test_a_hold_takes_up_a_prompt_and_an_answer_until_it_ends() -> None:
    budget = KvBudget(40, None)
    hold = Hold(budget, prompt(1, 2), 10)
    hold.begin()
    assert budget.takes(prompt(1, 2), 10)
    assert not budget.takes(prompt(1, 2), 11)
    hold.end()
    assert budget.takes(prompt(3, 4, 5, 6), 0)
