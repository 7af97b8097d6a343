"""Block names: equal exactly as far as prompts are equal."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.router.policies.base import blocks_of, chain, root_of, token_bytes

BLOCK = 8


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=60), st.binary(max_size=60))
def test_equal_names_mean_equal_beginnings(head: bytes, one: bytes, other: bytes) -> None:
    first, second = head + one, head + other
    for index, (a, b) in enumerate(zip(blocks_of(first, BLOCK), blocks_of(second, BLOCK), strict=False)):
        end = (index + 1) * BLOCK
        assert (a == b) == (first[:end] == second[:end])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_only_whole_blocks_have_names_and_each_is_chained_to_the_last(data: bytes) -> None:
    names = blocks_of(data, BLOCK)
    assert len(names) == len(data) // BLOCK
    parent = 0
    for index, name in enumerate(names):
        assert name == chain(parent, data[index * BLOCK : (index + 1) * BLOCK])
        parent = name


def test_namespaces_share_nothing() -> None:
    data = b"x" * 4 * BLOCK
    plain, salted, other = (
        blocks_of(data, BLOCK, root_of(space)) for space in ((None, None), ("a", None), (None, "a"))
    )
    assert root_of((None, None)) == 0
    assert len({*plain, *salted, *other}) == 12


def test_token_ids_are_four_bytes_each() -> None:
    assert token_bytes([1, 2**31]) == b"\x01\0\0\0\0\0\0\x80"
