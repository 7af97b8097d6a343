"""Hooks of a decode server: take the base's KV for x[:-1], start the module at x[-1], keep the tree pure.

The order in which they act on a request: `psserve/engine/handover/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psserve.engine.handover.differences import (
    forget_prompt,
    holds_empty_row,
    reasoning_of,
    release_empty_row,
    set_reasoning,
    slots_of,
)
from psserve.engine.handover.penalties import cumulate_emitted_tokens_only
from psserve.engine.handover.rule import (
    base_len_of,
    is_fresh,
    is_one_token,
    last_prompt_token_hidden,
    last_prompt_token_pending,
    prompt_len,
)
from psserve.engine.handover.sglang.request import Req, ReqLogprob
from psserve.engine.handover.sglang.scheduler import Batch, DecodeRequest, TransferQueue
from psserve.engine.hooks import Hook, Kind
from psserve.engine.settings import NegativeControl
from psserve.rule import prefill_len

_QUEUE = "sglang.srt.disaggregation.decode.DecodePreallocQueue"
_BATCH = "sglang.srt.disaggregation.decode_schedule_batch_mixin.ScheduleBatchDisaggregationDecodeMixin"


def _received_len(original: Callable[[Req], int], req: Req) -> int:
    """How many tokens' KV a request asks the prefill server for.

    The prefill server cannot run an empty prompt, so for one token it sends KV that `_drop_base_output` then drops.
    """
    if not is_fresh(req):
        return original(req)
    return base_len_of(req) if req.retracted_stain else prefill_len(prompt_len(req))


def _match_base_prefix(original: Callable[[object, Req], Any], queue: object, req: Req) -> Any:
    """Match at most n - 1 tokens: the tree may hold the base's KV of x[n-1] from a longer prompt."""
    with last_prompt_token_hidden([req]):
        return original(queue, req)


def _drop_base_output(
    original: Callable[[TransferQueue, DecodeRequest], None], queue: TransferQueue, decode_req: DecodeRequest
) -> None:
    """Commit a transfer without what the base sampled: the first output token is the module's."""
    req = decode_req.req
    fresh = is_fresh(req)
    reasoning = reasoning_of(req)
    original(queue, decode_req)
    if not fresh or not req.output_ids:  # not ours to correct, or the transfer failed and nothing was committed
        return
    del req.output_ids[:]
    set_reasoning(req, reasoning)
    _count_own_cache_hits(req)
    if req.return_logprob:
        _forget_logprobs(req.logprob)
    if is_one_token(req):
        _release_received_kv(queue, req)


def _count_own_cache_hits(req: Req) -> None:
    """Have `cached_tokens` say what this server's tree held.

    Stock SGLang starts from the prefill server's count and adds only what is beyond it. That count is the router's to
    read, from the prefill server; here it hides how much KV had to be sent.
    """
    req.cached_tokens = req.already_computed = 0
    req.cached_tokens_device = req.cached_tokens_host = req.cached_tokens_storage = 0


def _forget_logprobs(logprob: ReqLogprob) -> None:
    logprob.output_token_logprobs_val.clear()
    logprob.output_token_logprobs_idx.clear()
    logprob.output_top_logprobs_val.clear()
    logprob.output_top_logprobs_idx.clear()
    if logprob.output_token_ids_logprobs_val and logprob.output_token_ids_logprobs_idx:
        logprob.output_token_ids_logprobs_val.clear()
        logprob.output_token_ids_logprobs_idx.clear()


def _release_received_kv(queue: TransferQueue, req: Req) -> None:
    """Give back the slot of a one-token prompt: position 0 is the module's to write."""
    scheduler = queue.scheduler
    held = slots_of(req)
    slots = scheduler.req_to_token_pool.req_to_token[held.req_pool_idx, : req.kv.kv_allocated_len]
    scheduler.token_to_kv_pool_allocator.free(slots)
    held.kv_committed_len = 0
    req.kv.kv_allocated_len = 0
    forget_prompt(req)


def _prepare_prebuilt(original: Callable[[Batch], None], batch: Batch) -> None:
    with last_prompt_token_hidden(batch.reqs):
        original(batch)


def _process_prebuilt(original: Callable[..., None], batch: Batch, *args: Any) -> None:
    """Queue x[-1] as the next token to consume, and let only complete, purely base KV into the tree."""
    for req in batch.reqs:
        if not is_fresh(req) or is_one_token(req) or req.retracted_stain:
            req.skip_radix_cache_insert = True
    with last_prompt_token_pending(batch.reqs):
        original(batch, *args)


def _emit_nothing_for_fresh(original: Callable[[object, Batch], None], processor: object, batch: Batch) -> None:
    """A fresh request has no output to finish on or to stream; only its timestamps and a pending abort matter."""
    fresh = [req for req in batch.reqs if is_fresh(req) and req.to_finish is None]
    for req in fresh:
        req.time_stats.set_decode_prebuilt_finish_time()
    everyone = batch.reqs
    held = {id(req) for req in fresh}
    batch.reqs = [req for req in everyone if id(req) not in held]
    try:
        original(processor, batch)
    finally:
        batch.reqs = everyone


def _never_insert_finished(
    original: Callable[..., None], req: Req, tree_cache: object, is_insert: bool = True, **newer: bool
) -> None:
    """Free a request's KV without keeping it: [n-1, ...) is the module's, [0, n-1) entered the tree at the start.

    A prompt of one token that ends before the module's first step has no KV at all.
    """
    if holds_empty_row(req):
        release_empty_row(req, tree_cache)
        return
    original(req, tree_cache, **{"checkpoint" if "checkpoint" in newer else "is_insert": False})


_KEEP_MODULE_KV_OUT = Hook("sglang.srt.mem_cache.common.release_kv_cache", Kind.AROUND, _never_insert_finished)


def hooks(negative_control: NegativeControl) -> tuple[Hook, ...]:
    """The hooks that a decode server needs on SGLang."""
    kept_out = () if negative_control is NegativeControl.KEEP_GENERATED_KV else (_KEEP_MODULE_KV_OUT,)
    return (
        Hook(f"{_QUEUE}._pre_alloc_fill_len", Kind.AROUND, _received_len),
        Hook(f"{_QUEUE}._rebootstrap_prefill_len", Kind.AROUND, _received_len),
        Hook(f"{_QUEUE}._match_prefix_and_lock", Kind.AROUND, _match_base_prefix),
        Hook(
            "sglang.srt.disaggregation.decode.DecodeTransferQueue._commit_transfer_to_req",
            Kind.AROUND,
            _drop_base_output,
        ),
        Hook(f"{_BATCH}.prepare_for_prebuilt", Kind.AROUND, _prepare_prebuilt),
        Hook(f"{_BATCH}.process_prebuilt", Kind.AROUND, _process_prebuilt),
        Hook(
            "sglang.srt.managers.scheduler_components.batch_result_processor"
            ".SchedulerBatchResultProcessor.process_batch_result_prebuilt",
            Kind.AROUND,
            _emit_nothing_for_fresh,
        ),
        Hook(
            "sglang.srt.managers.schedule_batch.ScheduleBatch.cumulate_penalty_output_tokens",
            Kind.AROUND,
            cumulate_emitted_tokens_only,
        ),
        *kept_out,
    )
