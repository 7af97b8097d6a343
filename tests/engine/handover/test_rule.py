"""Who owns which KV, as the hooks show it to SGLang."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.engine.handover.rule import (
    base_len_of,
    is_fresh,
    is_one_token,
    last_prompt_token_hidden,
    last_prompt_token_pending,
)

tokens = st.lists(st.integers(0, 2**40), max_size=20)
prompts = st.lists(st.integers(0, 2**40), min_size=1, max_size=20)


def request(prompt: list[int], output: list[int]) -> SimpleNamespace:
    return SimpleNamespace(origin_input_ids=array("q", prompt), output_ids=array("q", output), grammar=object())


def test_a_request_is_fresh_until_it_has_output() -> None:
    assert is_fresh(request([1, 2], []))
    assert not is_fresh(request([1, 2], [3]))


def test_a_request_whose_kv_is_recomputed_is_not_fresh() -> None:
    rebootstrapped = request([1, 2], [])
    rebootstrapped.pd_rebootstrap_in_progress = True
    assert not is_fresh(rebootstrapped)


@given(prompts)
def test_the_base_owns_all_of_the_prompt_but_its_last_token(prompt: list[int]) -> None:
    assert base_len_of(request(prompt, [])) == len(prompt) - 1
    assert is_one_token(request(prompt, [])) == (len(prompt) == 1)


@given(prompts, tokens)
def test_hiding_shows_fresh_requests_without_their_last_token(prompt: list[int], output: list[int]) -> None:
    req = request(prompt, output)
    with last_prompt_token_hidden([req]):
        assert list(req.origin_input_ids) == (prompt if output else prompt[:-1])
        assert list(req.output_ids) == output
    assert list(req.origin_input_ids) == prompt


@given(prompts, tokens)
def test_pending_shows_fresh_requests_as_about_to_consume_their_last_token(
    prompt: list[int], output: list[int]
) -> None:
    req = request(prompt, output)
    grammar = req.grammar
    with last_prompt_token_pending([req]):
        assert list(req.output_ids) == (output or prompt[-1:])
        assert (req.grammar is None) == (not output)
    assert list(req.output_ids) == output
    assert req.grammar is grammar


@pytest.mark.parametrize("shown", [last_prompt_token_hidden, last_prompt_token_pending])
def test_requests_are_restored_when_sglang_fails(shown: object) -> None:
    req = request([1, 2, 3], [])
    with pytest.raises(RuntimeError), shown([req]):  # type: ignore[operator]
        raise RuntimeError
    assert (list(req.origin_input_ids), list(req.output_ids)) == ([1, 2, 3], [])
