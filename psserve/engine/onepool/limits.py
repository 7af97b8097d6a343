"""A prompt may be longer than a decode server's own pool: it takes none of it. Only its answer does.

SGLang lets a request in when, of those that run, the one that may become longest could still end if all others were
retracted. It counts prompts to them. Here what is read in place is left out on both sides, or a few requests without
a limit of their own would not run beside each other in a small pool, though their answers are short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from psserve.contracts.one_pool import longest_answer
from psserve.engine.handover.sglang.one_pool import PoolPreallocQueue, PoolReq, PoolScheduler, PoolWorker
from psserve.engine.hooks import Hook, Kind
from psserve.engine.onepool.readings import READINGS

_QUEUE = "sglang.srt.disaggregation.decode.DecodePreallocQueue"
_LONGEST = slice(4, 6)
"""Where `get_worker_info` says how long a request, and its prompt, may be."""
_SPECIAL = 5
"""SGLang's own margin between the two."""
_NO_LIMIT = 1 << 30


def _as_long_as_the_model_takes(original: Callable[..., tuple[Any, ...]], worker: PoolWorker) -> tuple[Any, ...]:
    """AROUND `TpModelWorker.get_worker_info`."""
    info = list(original(worker))
    longest = worker.model_config.context_len - 1
    info[_LONGEST] = longest, longest - _SPECIAL
    return tuple(info)


def _limit_the_answer_alone(original: Callable[..., None], scheduler: PoolScheduler, req: PoolReq) -> None:
    """AROUND `Scheduler.init_req_max_new_tokens`: what the pool holds beside the last pages of prompts."""
    own = scheduler.max_total_num_tokens
    scheduler.max_total_num_tokens = _NO_LIMIT
    try:
        original(scheduler, req)
    finally:
        scheduler.max_total_num_tokens = own
    asked, limit = req.sampling_params, longest_answer(own, scheduler.page_size)
    asked.max_new_tokens = min(asked.max_new_tokens, limit)
    asked.min_new_tokens = min(asked.min_new_tokens, asked.max_new_tokens)


def _never_too_long(original: Callable[..., bool], queue: PoolPreallocQueue, req: PoolReq) -> bool:
    """AROUND `_check_if_req_exceed_kv_capacity`."""
    return False


def _longest_that_runs(
    original: Callable[..., int], queue: PoolPreallocQueue, retractable_tokens: int | None = None
) -> int:
    """AROUND `_need_space_for_single_req`: less what a request is let in with, which `_to_begin` asks for beside it."""
    running = _running(queue)
    if retractable_tokens is None or not running:
        return original(queue, retractable_tokens)
    return max(map(_at_most, running)) - _held(running) - _to_go_on(queue)


def _to_begin(
    original: Callable[..., int],
    queue: PoolPreallocQueue,
    req: PoolReq,
    allocated_tokens: int,
    prefix_len: int,
    retractable_tokens: int,
) -> int:
    """AROUND `_required_admission_tokens`: more than there is, where it could not end with all others retracted."""
    needed = allocated_tokens + _longest_answer(req) - _held(_running(queue))
    if needed > queue.token_to_kv_pool_allocator.available_size():
        return needed
    return allocated_tokens + _to_go_on(queue)


def _running(queue: PoolPreallocQueue) -> list[PoolReq]:
    return cast(list[PoolReq], queue.scheduler.running_batch.reqs)


def _to_go_on(queue: PoolPreallocQueue) -> int:
    """Tokens that a request is let in with beside those that it begins with."""
    return queue.num_reserved_decode_tokens


def _at_most(req: PoolReq) -> int:
    """Own tokens of a request at its end."""
    return _own_prompt(req) + _longest_answer(req)


def _longest_answer(req: PoolReq) -> int:
    return req.sampling_params.max_new_tokens


def _held(reqs: Iterable[PoolReq]) -> int:
    """Own tokens that requests have now, and lose when they are retracted."""
    return sum(_own_prompt(req) + len(req.output_ids) for req in reqs)


def _own_prompt(req: PoolReq) -> int:
    read = READINGS.slots_of(req)
    return len(req.origin_input_ids) - (0 if read is None else len(read))


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs."""
    return (
        Hook("sglang.srt.managers.tp_worker.TpModelWorker.get_worker_info", Kind.AROUND, _as_long_as_the_model_takes),
        Hook("sglang.srt.managers.scheduler.Scheduler.init_req_max_new_tokens", Kind.AROUND, _limit_the_answer_alone),
        Hook(f"{_QUEUE}._check_if_req_exceed_kv_capacity", Kind.AROUND, _never_too_long),
        Hook(f"{_QUEUE}._need_space_for_single_req", Kind.AROUND, _longest_that_runs),
        Hook(f"{_QUEUE}._required_admission_tokens", Kind.AROUND, _to_begin),
    )
