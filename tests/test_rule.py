"""Whose KV it is, by a prompt's length."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.rule import base_len, base_part, module_part, prefill_len, shares_nothing

prompts = st.lists(st.integers(0, 2**40), min_size=1, max_size=20)


@pytest.mark.parametrize(("prompt", "base"), [(1, 0), (2, 1), (100, 99)])
def test_the_base_has_all_of_a_prompt_but_its_last_token(prompt: int, base: int) -> None:
    assert base_len(prompt) == base


@pytest.mark.parametrize(("prompt", "read"), [(1, 1), (2, 1), (3, 2)])
def test_a_prefill_server_reads_the_bases_part_and_of_one_token_that_token(prompt: int, read: int) -> None:
    assert prefill_len(prompt) == read


@given(prompts)
def test_base_and_module_read_every_token_once_and_the_module_the_last(prompt: list[int]) -> None:
    assert base_part(prompt) + module_part(prompt) == prompt
    assert module_part(prompt) == [prompt[-1]]
    assert len(base_part(prompt)) == base_len(len(prompt))


@pytest.mark.parametrize(("prompt", "nothing"), [(1, True), (2, False)])
def test_a_prompt_of_one_token_shares_nothing(prompt: int, nothing: bool) -> None:
    assert shares_nothing(prompt) is nothing


def test_parts_are_of_the_prompts_own_type() -> None:
    assert base_part(array("q", [1, 2])) == array("q", [1])
    assert module_part((1, 2)) == (2,)
