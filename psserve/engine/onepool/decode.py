"""Hooks of a decode server that reads base KV in place.

A request's whole pages of base KV are as if they were matched in this server's tree: they take no slots here, and are
not this server's to free. That is all that SGLang needs to be shown; its tree here stays empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch

from psserve.engine.handover.differences import slots_of
from psserve.engine.handover.rule import base_len_of, is_fresh
from psserve.engine.handover.sglang.one_pool import (
    PoolDecodeRequest,
    PoolPreallocQueue,
    PoolReq,
    PoolScheduler,
    PoolTransferQueue,
    PrefixedReq,
)
from psserve.engine.hooks import Hook, Kind
from psserve.engine.onepool import limits, pool, retraction
from psserve.engine.onepool.outbox import OUTBOX
from psserve.engine.onepool.readings import READINGS

_DECODE = "sglang.srt.disaggregation.decode"
_QUEUE = f"{_DECODE}.DecodePreallocQueue"

_promised: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""Request -> tokens for which it got no slots, since they will be read in place."""


def _classes(original: Callable[[Any, Any], Any], backend: Any, kind: Any) -> Any:
    """AROUND `get_kv_class`: what gets KV, in place of NIXL's."""
    from sglang.srt.disaggregation.utils import KVClassType, TransferBackend

    if backend == TransferBackend.FAKE:  # SGLang's own probes
        return original(backend, kind)
    from psserve.engine.onepool.reader import ReadingManager, ReadingReceiver

    ours = {KVClassType.MANAGER: ReadingManager, KVClassType.RECEIVER: ReadingReceiver}
    return ours.get(kind) or original(TransferBackend.FAKE, kind)


def _promise_pages(original: Callable[..., Any], queue: PoolPreallocQueue, req: PoolReq) -> Any:
    """AROUND `_match_prefix_and_lock`: in place of a match, the base's whole pages."""
    from sglang.srt.disaggregation.decode_hicache_mixin import DecodePrefixMatch
    from sglang.srt.disaggregation.utils import FAKE_BOOTSTRAP_HOST

    if req.bootstrap_host == FAKE_BOOTSTRAP_HOST or not is_fresh(req):  # the former are SGLang's own probes
        return original(queue, req)
    page, root = queue.token_to_kv_pool_allocator.page_size, queue.tree_cache.root_node_handle(req.extra_key)
    whole = base_len_of(req) // page * page
    _promised[req], req.last_node = whole, root
    return DecodePrefixMatch(
        # the allocator looks where in its page the last one is
        prefix_indices=torch.arange(whole, device=queue.token_to_kv_pool_allocator.device) % page,
        l2_host_hit_length=0,
        l3_storage_hit_length=0,
        last_device_node=root,
    )


def _read_in_place(original: Callable[..., None], queue: PoolTransferQueue, decode_req: PoolDecodeRequest) -> None:
    """AROUND `_commit_transfer_to_req`: the request's row names the lent pages; what is beyond them is copied."""
    from psserve.engine.onepool.reader import ReadingReceiver

    receiver, req, scheduler = decode_req.kv_receiver, decode_req.req, queue.scheduler
    if isinstance(receiver, ReadingReceiver):
        allocator, held = scheduler.token_to_kv_pool_allocator, slots_of(req)
        row, page = scheduler.req_to_token_pool.req_to_token[held.req_pool_idx], allocator.page_size
        reading = receiver.reading(page, allocator.device)
        whole, end = _promised.pop(req, 0), held.kv_committed_len
        row[:whole] = reading.slots[:whole]
        lent, own = reading.first_rows[whole // page : -(-end // page)], [page * page_ for page_ in receiver.own_pages]
        reading.taken(pool.MEMORY.reader().copy(lent.tolist(), own, end - whole, page, scheduler))
        READINGS.begin(req, reading, whole)
        if hasattr(req, "prefix_indices"):  # until 0.5.21
            cast(PrefixedReq, req).prefix_indices = reading.slots[:whole]
        req.skip_radix_cache_insert = True
    original(queue, decode_req)


def _each_turn(scheduler: PoolScheduler, *args: Any, **kwargs: Any) -> None:
    """BEFORE `process_decode_queue`, which the scheduler's loop calls in each turn."""
    OUTBOX.look()
    pool.MEMORY.reader().let_go(scheduler.req_to_token_pool.req_to_token)


def _release(original: Callable[..., None], req: PoolReq, *args: Any, **kwargs: Any) -> None:
    """AROUND `release_kv_cache`, and what drops the backup of a retracted request: it reads no more."""
    original(req, *args, **kwargs)
    READINGS.end(req)


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs."""
    return (
        Hook("sglang.srt.disaggregation.utils.get_kv_class", Kind.AROUND, _classes),
        *pool.READING,
        Hook(f"{_QUEUE}._match_prefix_and_lock", Kind.AROUND, _promise_pages),
        Hook(f"{_DECODE}.DecodeTransferQueue._commit_transfer_to_req", Kind.AROUND, _read_in_place),
        Hook(f"{_DECODE}.SchedulerDisaggregationDecodeMixin.process_decode_queue", Kind.BEFORE, _each_turn),
        Hook("sglang.srt.mem_cache.common.release_kv_cache", Kind.AROUND, _release),
        Hook("sglang.srt.mem_cache.common.retraction_discard", Kind.AROUND, _release),
        Hook("sglang.srt.mem_cache.common.discard_kv_cache_backup", Kind.AROUND, _release),
        *retraction.hooks(),
        *limits.hooks(),
    )
