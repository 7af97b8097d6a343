"""Pages are named as SGLang names them, and a tree rebuilt from the events of SGLang's radix cache is that cache."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psserve import torchvision_ops
from psserve.engine.fixes.kv_events import _hash_pages
from psserve.router.policies.base import TOKEN_BYTES, blocks_of, token_bytes
from psserve.router.policies.events import EventTree

PAGE = 2
TOKENS = list(range(32))
NAMES = [
    "5d85718ec594b982c252d0279e5966ffca33a5eaf2a455038d3ab331fde70cea",
    "4681c0107c38f402cd1bc30b0b09a65202dba31f98269d9d7f63f5e0dea6901a",
]
"""What SGLang 0.5.18's extension says of TOKENS in pages of 16."""

prompts = st.lists(st.integers(0, 1), max_size=12)
actions = st.lists(st.one_of(prompts, st.integers(1, 8), st.none()), max_size=25)
"""A list is inserted, a number of tokens is evicted, None clears the cache."""


class Pool:
    """What a radix cache gives evicted KV back to."""

    device = "cpu"

    size = 1_000

    def free(self, slots: Any, start_pos: int = 0) -> None:
        """SGLang 0.5.17 frees pages, later ones segments of them."""

    free_segment = free


@pytest.fixture(scope="module")
def radix_cache() -> Iterator[Any]:
    """SGLang's class, naming pages by psserve's function."""
    torchvision_ops.declare_missing()
    from sglang.srt.mem_cache import radix_cache, utils

    with pytest.MonkeyPatch.context() as patch:
        original = utils.get_native_hash
        patch.setattr(utils, "get_native_hash", lambda *args: _hash_pages(original, *args))
        yield radix_cache


@pytest.mark.parametrize("kind", [list, lambda tokens: array("q", tokens)])
def test_pages_have_the_names_that_sglang_gives_them(radix_cache: Any, kind: Any) -> None:
    assert _hash_pages(None, kind(TOKENS), None, 16) == NAMES
    assert _hash_pages(None, kind(TOKENS[16:]), bytes.fromhex(NAMES[0]), 16) == NAMES[1:]
    assert _hash_pages(None, kind(TOKENS[:16]), None) == NAMES[0]
    assert _hash_pages(None, kind([]), None, 16) == []


def test_pairs_of_tokens_are_named_by_sglang(radix_cache: Any) -> None:
    pairs = radix_cache.RadixKey(array("q", TOKENS), is_bigram=True)
    assert _hash_pages(lambda *given: [given], pairs, None, 16) == [(pairs, None, 16)]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions, st.lists(prompts, max_size=4))
def test_a_tree_rebuilt_from_events_matches_as_the_cache_does(radix_cache: Any, history: Any, asked: Any) -> None:
    from sglang.srt.mem_cache.base_prefix_cache import EvictParams, InsertParams, MatchPrefixParams

    cache = radix_cache.RadixCache.create_simulated(mock_allocator=Pool(), page_size=PAGE, enable_kv_cache_events=True)
    tree = EventTree(PAGE)

    def key(tokens: list[int]) -> Any:
        return radix_cache.RadixKey(token_ids=array("q", tokens), extra_key=None)

    for action in history:
        if action is None:
            cache.reset()
        elif isinstance(action, int):
            cache.evict(EvictParams(num_tokens=action))
        else:
            cache.insert(InsertParams(key=key(action)))
        for event in msgspec.msgpack.decode(msgspec.msgpack.encode(cache.take_events())):
            tree.apply(event)
    for tokens in [*asked, *(action for action in history if isinstance(action, list))]:
        match = cache.match_prefix(MatchPrefixParams(key=key(tokens)))
        held = match.device_prefix_len if hasattr(match, "device_prefix_len") else len(match.device_indices)
        assert tree.match(blocks_of(token_bytes(tokens), PAGE * TOKEN_BYTES)) * PAGE == held
