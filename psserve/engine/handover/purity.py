"""A check at idle: a server's radix tree holds whole pages of the base's KV, and nobody's lock.

SGLang checks at idle that no slot of its pools is lost. This checks, at the same place, what the tree's slots hold. It
does not trust the hooks that keep a module's KV out, so it keeps a record of its own, of what was written last:

     a slot of a decode server's pool                           its KV is
     is allocated (to a new or a resumed request)               nobody's
     is part of a transfer that came in whole                   the BASE's
     is where a decode step writes                              the MODULE's

A prefill server runs the base alone: there is no record, and only pages and locks are looked at.

It is off unless PSSERVE_CHECK_PURITY=1. A tree is looked through once after requests have touched it. On one CPU core
that takes 0.7 ms for 1,000 nodes of 128 tokens and 8 ms for 1,000 of 1,024; the record takes 3 µs a decode step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch

from psserve.engine.handover.differences import keeps_prefixes, slots_of
from psserve.engine.handover.sglang.scheduler import (
    Allocator,
    Batch,
    DecodeRequest,
    InvariantChecker,
    PreallocQueue,
    TransferQueue,
)
from psserve.engine.handover.sglang.trees import NodeTree, RowTree, TreeCache, TreeNode
from psserve.engine.hooks import Hook, Kind
from psserve.engine.settings import Role
from psserve.errors import ImpureTree

_DECODE = "sglang.srt.disaggregation.decode"
_CHECKER = "sglang.srt.managers.scheduler_components.invariant_checker.SchedulerInvariantChecker"
_SHOWN = 8


class BaseSlots:
    """Which slots of a decode server's pool hold the base's KV: those that a transfer was the last to write."""

    def __init__(self) -> None:
        self._holds_base: torch.Tensor | None = None  # bool [slots], on the pool's device

    def others(self, slots: torch.Tensor) -> torch.Tensor:
        """Return those of `slots` that hold something else."""
        return slots if self._holds_base is None else slots[~self._holds_base[slots]]

    def allocated(self, slots: torch.Tensor, queue: PreallocQueue, *args: object) -> None:
        """AFTER `DecodePreallocQueue._pre_alloc`, which returns the slots."""
        self._record(queue.token_to_kv_pool_allocator, slots, False)

    def received(self, result: None, queue: TransferQueue, decode_req: DecodeRequest) -> None:
        """AFTER `DecodeTransferQueue._commit_transfer_to_req`: KV came for all that the tree did not have."""
        held, scheduler = slots_of(decode_req.req), queue.scheduler
        slots = scheduler.req_to_token_pool.req_to_token[
            held.req_pool_idx, held.cache_protected_len : held.kv_committed_len
        ]
        self._record(scheduler.token_to_kv_pool_allocator, slots, True)

    def written(self, result: None, batch: Batch) -> None:
        """AFTER `ScheduleBatch.prepare_for_decode`: the module writes the KV of one token of each request."""
        self._record(batch.token_to_kv_pool_allocator, batch.out_cache_loc, False)

    def _record(self, allocator: Allocator, slots: torch.Tensor, holds_base: bool) -> None:
        if self._holds_base is None:
            slot_count = allocator.size + allocator.page_size  # the first page is padding
            self._holds_base = torch.zeros(slot_count, dtype=torch.bool, device=allocator.device)
        self._holds_base[slots.long()] = holds_base


class IdleCheck:
    """Looks at a tree when a server has become idle. `base_slots` is None where all KV is the base's."""

    def __init__(self, base_slots: BaseSlots | None) -> None:
        self._base_slots = base_slots
        self._matches = 0
        self._checked: float | None = None

    def matched(self, result: object, *args: object) -> None:
        """AFTER `UnifiedRadixCache.match_prefix`: a request touches the tree, which does not tell so itself."""
        self._matches += 1

    def run(self, result: None, checker: InvariantChecker) -> None:
        """AFTER `SchedulerInvariantChecker._check_tree_cache`. Raises ImpureTree, which ends SGLang's scheduler."""
        tree = checker.tree_cache
        if not keeps_prefixes(tree):
            return
        touched = self._touched(tree)
        if touched == self._checked:
            return
        if breach := find_breach(tree, self._base_slots):
            raise ImpureTree(f"the radix tree of an idle server is not as it must be: {breach}")
        self._checked = touched

    def _touched(self, tree: TreeCache) -> float:
        """A number that changes with every match; every insertion follows one."""
        return self._matches if _tells_rows(tree) else cast(NodeTree, tree).root_node.last_access_time


def find_breach(tree: TreeCache, base_slots: BaseSlots | None) -> str | None:
    """Say what is wrong with the tree of a server that runs no request; None if nothing is."""
    if _tells_rows(tree):
        slots, breach = _rows_of(cast(RowTree, tree))
    else:
        slots, breach = _slots_of(cast(NodeTree, tree))
    if breach or base_slots is None or not len(slots):
        return breach
    foreign = base_slots.others(slots).tolist()
    if foreign:
        return f"{len(foreign)} slots hold KV that did not come from the base: {foreign[:_SHOWN]}"
    return None


def _tells_rows(tree: TreeCache) -> bool:
    """Whether it is SGLang's tree since 0.5.19, whose core, of Python or of Rust, has no nodes to show."""
    return hasattr(tree, "tree_core")


def _rows_of(tree: RowTree) -> tuple[torch.Tensor, str | None]:
    """All slots of a tree, and what is wrong with its locks or pages."""
    rows = tree.tree_core.walk_for_kv_canary(unlocked_only=False, swa_resident_only=False)
    unlocked = tree.tree_core.walk_for_kv_canary(unlocked_only=True, swa_resident_only=False)
    slots, page = rows.slot_indices, tree.page_size
    if locked := len(slots) - len(unlocked.slot_indices):
        return slots, f"{locked} tokens are locked, and no request runs"
    if len(slots) % page or ((slots - rows.positions) % page).any():
        return slots, f"the {len(slots)} tokens are not in whole pages of {page}"
    return slots, None


def _slots_of(tree: NodeTree) -> tuple[torch.Tensor, str | None]:
    """The same of the tree until 0.5.18."""
    nodes = list(_nodes_of(tree))
    slots = torch.cat([node.value for node in nodes]) if nodes else torch.empty(0, dtype=torch.int64)
    for node in nodes:
        if node.lock_ref:
            return slots, f"{len(node.key)} tokens are locked {node.lock_ref} times, and no request runs"
        if len(node.key) % tree.page_size:
            return slots, f"a node of {len(node.key)} tokens is not made of whole pages of {tree.page_size}"
    return slots, None


def _nodes_of(tree: NodeTree) -> Iterator[TreeNode]:
    """All nodes but the root, which has no tokens and is locked for good."""
    pending = list(tree.root_node.children.values())
    while pending:
        node = pending.pop()
        yield node
        pending.extend(node.children.values())


def hooks(role: Role | None) -> tuple[Hook, ...]:
    """The hooks that check a server's tree, and on a decode server those that keep the record."""
    record = BaseSlots() if role is Role.DECODE else None
    check = IdleCheck(record)
    always = (
        Hook(f"{_CHECKER}._check_tree_cache", Kind.AFTER, check.run),
        Hook("sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache.match_prefix", Kind.AFTER, check.matched),
    )
    if record is None:
        return always
    return (
        *always,
        Hook(f"{_DECODE}.DecodePreallocQueue._pre_alloc", Kind.AFTER, record.allocated),
        Hook(f"{_DECODE}.DecodeTransferQueue._commit_transfer_to_req", Kind.AFTER, record.received),
        Hook("sglang.srt.managers.schedule_batch.ScheduleBatch.prepare_for_decode", Kind.AFTER, record.written),
    )
