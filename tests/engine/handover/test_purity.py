"""What an idle server finds wrong with its radix tree, and that nothing else troubles it."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.mem_cache.base_prefix_cache import InsertParams, MatchPrefixParams  # noqa: E402
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool  # noqa: E402
from sglang.srt.mem_cache.radix_cache import RadixCache, RadixKey  # noqa: E402

from psserve.engine.cpu.allocator import allocator_class  # noqa: E402
from psserve.engine.handover.purity import BaseSlots, IdleCheck, find_breach, hooks  # noqa: E402
from psserve.engine.settings import Role  # noqa: E402
from psserve.errors import ImpureTree  # noqa: E402
from tests.engine.release import only, radix_tree  # noqa: E402

PAGE = 4
POOL = 64


class Server:
    """The memory of a decode server: SGLang's tree and allocator, psserve's record, and one row of slots a request."""

    def __init__(self, page_size: int = PAGE) -> None:
        self.token_to_kv_pool_allocator = allocator_class(
            POOL, page_size=page_size, dtype=torch.float32, device="cpu", kvcache=None, need_sort=False
        )
        self.tree_cache = RadixCache.create_simulated(page_size=page_size)
        self.base_slots = BaseSlots()
        self.rows = torch.zeros(8, POOL, dtype=torch.int32)

    def allocate(self, row: int, slots: list[int], start: int = 0) -> None:
        taken = torch.tensor(slots)
        self.rows[row, start : start + len(slots)] = taken
        self.base_slots.allocated(taken, self, "request")

    def receive(self, row: int, start: int, end: int) -> None:
        """A transfer of the KV of positions [start, end) has come in; the tree had that of [0, start)."""
        req = SimpleNamespace(req_pool_idx=row, cache_protected_len=start, kv_committed_len=end)
        scheduler = SimpleNamespace(
            req_to_token_pool=SimpleNamespace(req_to_token=self.rows),
            token_to_kv_pool_allocator=self.token_to_kv_pool_allocator,
        )
        self.base_slots.received(None, SimpleNamespace(scheduler=scheduler), SimpleNamespace(req=req))

    def decode(self, *slots: int) -> None:
        """A decode step writes to one slot of each request."""
        allocator = self.token_to_kv_pool_allocator
        batch = SimpleNamespace(token_to_kv_pool_allocator=allocator, out_cache_loc=torch.tensor(slots))
        self.base_slots.written(None, batch)

    def insert(self, tokens: list[int], slots: list[int]) -> None:
        self.tree_cache.insert(InsertParams(key=key(tokens), value=torch.tensor(slots)))

    def match(self, tokens: list[int]) -> Any:
        """The node at which the tree's part of `tokens` ends."""
        return self.tree_cache.match_prefix(MatchPrefixParams(key=key(tokens))).last_device_node

    @property
    def breach(self) -> str | None:
        return find_breach(self.tree_cache, self.base_slots)


def key(tokens: list[int]) -> Any:
    return RadixKey(token_ids=array("q", tokens))


class RowServer(Server):
    """The same with the tree of SGLang's servers since 0.5.21."""

    def __init__(self, core: str) -> None:
        super().__init__()
        requests = ReqToTokenPool(2, POOL, "cpu", False)
        self.tree_cache = radix_tree(requests, self.token_to_kv_pool_allocator, PAGE, core)


@pytest.fixture(params=["python", "rust"])
def row_server(request: pytest.FixtureRequest) -> RowServer:
    """It holds what came for a prompt of 8 tokens."""
    server = RowServer(request.param)
    assert ("Rust" in type(server.tree_cache.tree_core).__name__) == (request.param == "rust")
    server.allocate(0, list(range(4, 12)))
    server.receive(0, 0, 8)
    server.insert(list(range(8)), list(range(4, 12)))
    return server


def with_one_prompt() -> Server:
    """A server whose tree holds what came for a prompt of 8 tokens."""
    server = Server()
    server.allocate(0, list(range(4, 12)))
    server.receive(0, 0, 8)
    server.insert(list(range(8)), list(range(4, 12)))
    return server


def test_an_empty_tree_is_pure() -> None:
    assert Server().breach is None


def test_received_pages_are_pure() -> None:
    assert with_one_prompt().breach is None


def test_a_prompt_that_goes_on_from_one_in_the_tree_is_pure() -> None:
    server = with_one_prompt()
    server.rows[1, :8] = torch.arange(4, 12)
    server.allocate(1, [20, 21, 22, 23, 24], start=8)
    server.receive(1, 8, 13)
    server.insert(list(range(12)), [*range(4, 12), 20, 21, 22, 23])
    assert server.breach is None


def test_a_slot_that_a_module_wrote_is_found() -> None:
    server = with_one_prompt()
    server.allocate(1, list(range(12, 20)))
    server.receive(1, 0, 6)
    server.decode(18)
    server.insert([9, 8, 7, 6, 5, 4, 3, 2], list(range(12, 20)))
    assert server.breach == "2 slots hold KV that did not come from the base: [18, 19]"


def test_a_slot_that_a_module_overwrote_is_found() -> None:
    server = with_one_prompt()
    server.decode(5)
    assert server.breach == "1 slots hold KV that did not come from the base: [5]"


def test_a_slot_that_was_allocated_anew_is_found_until_kv_has_come() -> None:
    server = with_one_prompt()
    server.allocate(1, [4, 5, 6, 7])  # as a request that is resumed: its KV is restored, not received
    assert server.breach == "4 slots hold KV that did not come from the base: [4, 5, 6, 7]"
    server.receive(1, 0, 4)
    assert server.breach is None


def test_what_the_tree_had_was_not_received_again() -> None:
    server = Server()
    server.allocate(0, list(range(4, 12)))
    server.receive(0, 4, 8)
    server.insert(list(range(8)), list(range(4, 12)))
    assert server.breach == "4 slots hold KV that did not come from the base: [4, 5, 6, 7]"


def test_every_slot_is_foreign_before_anything_has_come() -> None:
    server = Server()
    server.insert(list(range(4)), [4, 5, 6, 7])
    assert server.breach == "4 slots hold KV that did not come from the base: [4, 5, 6, 7]"


def test_a_foreign_slot_below_another_node_is_found() -> None:
    server = with_one_prompt()
    server.insert(list(range(12)), list(range(4, 16)))
    assert server.breach == "4 slots hold KV that did not come from the base: [12, 13, 14, 15]"


def test_the_last_slot_of_the_pool_has_its_place_in_the_record() -> None:
    server = Server()
    server.allocate(0, list(range(POOL, POOL + PAGE)))  # page 0 is padding
    server.receive(0, 0, PAGE)
    server.insert(list(range(PAGE)), list(range(POOL, POOL + PAGE)))
    assert server.breach is None


def test_a_part_of_a_page_is_found() -> None:
    server = Server(page_size=1)
    server.allocate(0, list(range(4, 10)))
    server.receive(0, 0, 6)
    server.insert(list(range(6)), list(range(4, 10)))
    assert server.breach is None
    server.tree_cache.page_size = PAGE
    assert server.breach == "a node of 6 tokens is not made of whole pages of 4"


def test_a_lock_that_was_left_is_found() -> None:
    server = with_one_prompt()
    node = server.match(list(range(8)))
    server.tree_cache.inc_lock_ref(node)
    assert server.breach == "8 tokens are locked 1 times, and no request runs"
    server.tree_cache.dec_lock_ref(node)
    assert server.breach is None


def test_a_lock_that_was_given_back_twice_is_found() -> None:
    server = with_one_prompt()
    server.tree_cache.dec_lock_ref(server.match(list(range(8))))
    assert server.breach == "8 tokens are locked -1 times, and no request runs"


def test_on_a_prefill_server_all_kv_is_the_bases_and_locks_are_looked_at() -> None:
    server = with_one_prompt()
    server.decode(5)
    assert find_breach(server.tree_cache, None) is None
    server.tree_cache.inc_lock_ref(server.match(list(range(4))))
    assert find_breach(server.tree_cache, None) == "4 tokens are locked 1 times, and no request runs"


def test_a_breach_ends_the_scheduler_and_says_what_it_is() -> None:
    server = with_one_prompt()
    server.decode(5)
    with pytest.raises(ImpureTree, match=r"1 slots hold KV that did not come from the base: \[5\]"):
        IdleCheck(server.base_slots).run(None, server)


def test_a_pure_tree_is_looked_at_once_until_a_request_touches_it() -> None:
    server = with_one_prompt()
    check = IdleCheck(server.base_slots)
    check.run(None, server)
    server.decode(5)
    check.run(None, server)
    server.match([1, 2, 3, 4])
    with pytest.raises(ImpureTree):
        check.run(None, server)


def test_a_server_that_keeps_nothing_has_nothing_to_look_at() -> None:
    IdleCheck(None).run(None, SimpleNamespace(tree_cache=SimpleNamespace(is_tree_cache=lambda: False)))


@pytest.mark.parametrize(("role", "count"), [(Role.PREFILL, 2), (Role.DECODE, 5)])
def test_hooks_of_a_role_share_one_record(role: Role, count: int) -> None:
    made = hooks(role)
    assert len({hook.target for hook in made}) == count
    server = with_one_prompt()
    by_target = {hook.target.rpartition(".")[2]: hook.function for hook in made}
    if role is Role.PREFILL:
        by_target["_check_tree_cache"](None, server)
        return
    with pytest.raises(ImpureTree):
        by_target["_check_tree_cache"](None, server)
    server.base_slots = by_target["_pre_alloc"].__self__  # type: ignore[attr-defined]
    server.allocate(0, list(range(4, 12)))
    server.receive(0, 0, 8)
    by_target["_check_tree_cache"](None, server)


rows = only(since="0.5.21")


@rows
def test_received_pages_are_pure_in_either_core(row_server: RowServer) -> None:
    assert row_server.breach is None
    row_server.allocate(1, [20, 21, 22, 23])
    row_server.receive(1, 0, 4)
    row_server.insert([9, 8, 7, 6], [20, 21, 22, 23])
    assert row_server.breach is None


@rows
def test_foreign_slots_are_found_in_either_core(row_server: RowServer) -> None:
    row_server.insert(list(range(12)), list(range(4, 16)))
    assert row_server.breach == "4 slots hold KV that did not come from the base: [12, 13, 14, 15]"


@rows
def test_a_slot_that_a_module_overwrote_is_found_in_either_core(row_server: RowServer) -> None:
    row_server.decode(5)
    assert row_server.breach == "1 slots hold KV that did not come from the base: [5]"


@rows
def test_a_lock_that_was_left_is_found_in_either_core(row_server: RowServer) -> None:
    tree, node = row_server.tree_cache, row_server.match(list(range(8)))
    lock = tree.inc_lock_ref(node)
    assert row_server.breach == "8 tokens are locked, and no request runs"
    assert find_breach(tree, None) == "8 tokens are locked, and no request runs"
    tree.dec_lock_ref(node, lock.to_dec_params())
    assert row_server.breach is None


@rows
def test_slots_that_are_no_whole_pages_are_found_in_either_core(row_server: RowServer) -> None:
    slots = [20, 21, 22, 24]  # a page of the pool begins at a multiple of 4
    row_server.allocate(1, slots)
    row_server.receive(1, 0, 4)
    row_server.insert([9, 8, 7, 6], slots)
    assert row_server.breach == "the 12 tokens are not in whole pages of 4"


@rows
def test_a_tree_that_no_request_touched_is_not_looked_at_again_in_either_core(row_server: RowServer) -> None:
    check = IdleCheck(row_server.base_slots)
    check.run(None, row_server)
    row_server.decode(5)
    check.run(None, row_server)
    check.matched(None)
    with pytest.raises(ImpureTree):
        check.run(None, row_server)
