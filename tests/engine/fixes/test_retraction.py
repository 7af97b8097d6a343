"""What a request that was retracted may say. Its way through a server: tests/engine/handover/test_decode.py."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import pytest

from psserve.engine.fixes import retraction
from psserve.engine.hooks import Kind


@pytest.mark.parametrize(
    ("output", "finished", "streamed"), [([], False, False), ([5], False, True), ([], True, True), ([5], True, True)]
)
def test_a_request_without_output_says_only_that_it_ended(output: list[int], finished: bool, streamed: bool) -> None:
    _, stream = retraction.hooks()
    assert stream.kind is Kind.BEFORE
    req = SimpleNamespace(output_ids=array("q", output), finished=lambda: finished)
    other = SimpleNamespace(output_ids=array("q", [1]), finished=lambda: False)
    streamer = object()
    given = stream.function(streamer, [req, other], True, skip_req=None)
    assert given == ((streamer, [req, other] if streamed else [other], True), {"skip_req": None})


def test_a_resumed_request_owns_all_its_slots_and_holds_no_lock() -> None:
    resume, _ = retraction.hooks()
    req = SimpleNamespace(last_node=None, cache_protected_len=8, kv_committed_len=9)
    queue = SimpleNamespace(tree_cache=SimpleNamespace(root_node=object()))
    assert resume.function(lambda queue, rids: [req], queue, ["1"]) == [req]
    assert req == SimpleNamespace(last_node=queue.tree_cache.root_node, cache_protected_len=0, kv_committed_len=9)
