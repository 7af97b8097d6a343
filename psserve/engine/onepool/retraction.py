"""A request that is retracted loses its own slots alone: it goes on reading the same lent pages when it is resumed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from psserve.engine.handover.differences import slots_of
from psserve.engine.handover.sglang.one_pool import BackedUpReq, PoolAllocator, PoolPreallocQueue, PoolReq
from psserve.engine.handover.sglang.scheduler import ReqToTokenPool
from psserve.engine.hooks import Hook, Kind
from psserve.engine.onepool.readings import READINGS

if TYPE_CHECKING:
    import torch

_QUEUE = "sglang.srt.disaggregation.decode.DecodePreallocQueue"
_REQ = "sglang.srt.managers.schedule_batch.Req"


def _keep_reading(original: Callable[..., Any], *, req: PoolReq, offload_kv: bool = True, **kwargs: Any) -> Any:
    """AROUND `release_req`."""
    if not offload_kv:  # its KV is computed anew, by another hand-over
        return original(req=req, offload_kv=offload_kv, **kwargs)
    with READINGS.kept(req):
        is_backed_up = original(req=req, offload_kv=offload_kv, **kwargs)
    if is_backed_up is False:  # releases before 0.5.21 say nothing
        READINGS.end(req)
    return is_backed_up


def _own_slots(req: PoolReq, req_to_token_pool: ReqToTokenPool) -> torch.Tensor:
    read = READINGS.slots_of(req)
    start = 0 if read is None else len(read)
    return req_to_token_pool.req_to_token[slots_of(req).req_pool_idx, start : req.seqlen - 1]


def _back_up_own(
    original: Callable[..., None], req: PoolReq, req_to_token_pool: ReqToTokenPool, allocator: PoolAllocator
) -> None:
    """AROUND `Req.offload_kv_cache`."""
    from sglang.srt.mem_cache.common import RetractionBackup

    copy = allocator.get_cpu_copy(_own_slots(req, req_to_token_pool), mamba_indices=None)
    cast(BackedUpReq, slots_of(req)).retraction_backup = RetractionBackup(cpu_tensors=copy)


def _load_own(
    original: Callable[..., None], req: PoolReq, req_to_token_pool: ReqToTokenPool, allocator: PoolAllocator
) -> None:
    """AROUND `Req.load_kv_cache`."""
    slots = _own_slots(req, req_to_token_pool)
    held = cast(BackedUpReq, slots_of(req))
    allocator.load_cpu_copy(held.retraction_backup.cpu_tensors, slots, mamba_indices=None)
    held.retraction_backup = None


def _allocate_own(original: Callable[..., Any], queue: PoolPreallocQueue, req: PoolReq, *prefix: Any) -> Any:
    """AROUND `_pre_alloc`, called without a prefix when a request is resumed: lent pages are not its to free."""
    read = READINGS.slots_of(req)
    if read is None or prefix:
        return original(queue, req, *prefix)
    req.last_node, slots_of(req).cache_protected_len = queue.tree_cache.root_node_handle(req.extra_key), len(read)
    return original(queue, req, read, len(read), len(read))


def _need_own(original: Callable[..., tuple[int, int]], queue: PoolPreallocQueue, req: PoolReq) -> tuple[int, int]:
    """AROUND `_prealloc_required_tokens`."""
    full, windowed = original(queue, req)
    read = READINGS.slots_of(req)
    return (full if read is None else full - len(read)), windowed


def _lent_is_not_its_own(
    original: Callable[..., list[PoolReq]], queue: PoolPreallocQueue, *args: Any, **kwargs: Any
) -> list[PoolReq]:
    """AROUND `resume_retracted_reqs`: what `_allocate_own` said, after fixes/retraction has said otherwise."""
    resumed = original(queue, *args, **kwargs)
    for req in resumed:
        read = READINGS.slots_of(req)
        slots_of(req).cache_protected_len = 0 if read is None else len(read)
    return resumed


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs."""
    return (
        Hook("sglang.srt.managers.schedule_batch.release_req", Kind.AROUND, _keep_reading),
        Hook(f"{_REQ}.offload_kv_cache", Kind.AROUND, _back_up_own),
        Hook(f"{_REQ}.load_kv_cache", Kind.AROUND, _load_own),
        Hook(f"{_QUEUE}._pre_alloc", Kind.AROUND, _allocate_own),
        Hook(f"{_QUEUE}._prealloc_required_tokens", Kind.AROUND, _need_own),
        Hook(f"{_QUEUE}.resume_retracted_reqs", Kind.AROUND, _lent_is_not_its_own),
    )
