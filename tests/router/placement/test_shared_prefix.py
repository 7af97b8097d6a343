"""Whose prefill a cached prefix came from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.router.placement.shared_prefix import PrefixOwners
from psserve.router.policies import Prompt

BLOCK_TOKENS = 16.0
MODULES = ("math", "code", "tools")


def prompt(*blocks: int, tail: int = 0) -> Prompt:
    """Named blocks, and `tail` tokens that fill no block."""
    return Prompt(blocks, round(len(blocks) * BLOCK_TOKENS) + tail, BLOCK_TOKENS)


def read(owners: PrefixOwners, module: str, what: Prompt, cached: int, server: str = "prefill-0") -> int:
    return owners.computed(server, module, what, what.tokens, cached)


def test_a_prefix_computed_for_another_module_is_shared() -> None:
    owners = PrefixOwners()
    assert read(owners, "math", prompt(1, 2, 3), 0) == 0
    assert read(owners, "code", prompt(1, 2, 3, 4), 48) == 48


def test_a_prefix_of_ones_own_is_not() -> None:
    owners = PrefixOwners()
    read(owners, "math", prompt(1, 2, 3), 0)
    assert read(owners, "math", prompt(1, 2, 3, 4), 48) == 0


def test_interleaved_modules_share_what_each_had_computed() -> None:
    """An agent's growing context: each turn extends the last one, whoever has it."""
    owners = PrefixOwners()
    assert read(owners, "math", prompt(1, 2), 0) == 0
    assert read(owners, "code", prompt(1, 2, 3), 32) == 32  # math's two
    assert read(owners, "math", prompt(1, 2, 3, 4), 48) == 16  # code's one
    assert read(owners, "tools", prompt(1, 2, 3, 4), 64) == 64  # all of both


def test_a_part_of_a_block_counts_with_it() -> None:
    owners = PrefixOwners()
    read(owners, "math", prompt(1, 2, tail=7), 0)
    assert read(owners, "code", prompt(1, 2, tail=7), 39) == 39


def test_what_is_computed_again_belongs_to_who_had_it_computed() -> None:
    owners = PrefixOwners()
    read(owners, "math", prompt(1, 2), 0)
    read(owners, "code", prompt(1, 2), 0)  # evicted meanwhile
    assert read(owners, "code", prompt(1, 2), 32) == 0
    assert read(owners, "math", prompt(1, 2), 32) == 32


def test_servers_have_caches_of_their_own() -> None:
    owners = PrefixOwners()
    read(owners, "math", prompt(1, 2), 0, "prefill-0")
    assert read(owners, "code", prompt(1, 2), 32, "prefill-1") == 0


def test_what_was_cached_before_the_router_came_is_nobodys() -> None:
    owners = PrefixOwners()
    assert read(owners, "math", prompt(1, 2), 32) == 0
    assert read(owners, "code", prompt(1, 2), 32) == 0


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    owners = PrefixOwners(max_blocks=4)
    read(owners, "math", prompt(1, 2), 0)
    read(owners, "math", prompt(3, 4, 5), 0)
    assert read(owners, "code", prompt(1, 2), 32) == 16  # of the two, the one that others build on was kept


def test_servers_that_left_are_forgotten() -> None:
    owners = PrefixOwners()
    read(owners, "math", prompt(1, 2), 0)
    owners.retain(["prefill-1"])
    assert read(owners, "code", prompt(1, 2), 32) == 0


@pytest.mark.parametrize("cached", [0, 5])
def test_a_prompt_without_blocks_shares_nothing(cached: int) -> None:
    assert PrefixOwners().computed("prefill-0", "math", Prompt((), 9, BLOCK_TOKENS), 9, cached) == 0


@given(
    turns=st.lists(
        st.tuples(st.sampled_from(MODULES), st.integers(0, 6), st.integers(0, 15), st.integers(0, 200)), max_size=20
    )
)
def test_never_more_than_the_server_had_cached(turns: list[tuple[str, int, int, int]]) -> None:
    owners = PrefixOwners(max_blocks=5)
    for module, blocks, tail, cached in turns:
        what = prompt(*range(1, blocks + 1), tail=tail + 1)
        cached = min(cached, what.tokens)
        assert 0 <= read(owners, module, what, cached) <= cached
