"""A prompt may be longer than a decode server's own pool: it takes none of it. Only its answer does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psserve.engine.hooks import Hook, Kind

_LONGEST = slice(4, 6)
"""Where `get_worker_info` says how long a request, and its prompt, may be."""
_SPECIAL = 5
"""SGLang's own margin between the two."""
_NO_LIMIT = 1 << 30


def _as_long_as_the_model_takes(original: Callable[[Any], tuple[Any, ...]], worker: Any) -> tuple[Any, ...]:
    """AROUND `TpModelWorker.get_worker_info`."""
    info = list(original(worker))
    longest = worker.model_config.context_len - 1
    info[_LONGEST] = longest, longest - _SPECIAL
    return tuple(info)


def _limit_the_answer_alone(original: Callable[[Any, Any], None], scheduler: Any, req: Any) -> None:
    """AROUND `Scheduler.init_req_max_new_tokens`: what the pool holds beside the prompt's last page, and one spare."""
    own = scheduler.max_total_num_tokens
    scheduler.max_total_num_tokens = _NO_LIMIT
    try:
        original(scheduler, req)
    finally:
        scheduler.max_total_num_tokens = own
    asked, limit = req.sampling_params, max(0, own - 2 * scheduler.page_size)
    asked.max_new_tokens = min(asked.max_new_tokens, limit)
    asked.min_new_tokens = min(asked.min_new_tokens, asked.max_new_tokens)


def _never_too_long(original: Callable[[Any, Any], bool], queue: Any, req: Any) -> bool:
    """AROUND `_check_if_req_exceed_kv_capacity`."""
    return False


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs."""
    return (
        Hook("sglang.srt.managers.tp_worker.TpModelWorker.get_worker_info", Kind.AROUND, _as_long_as_the_model_takes),
        Hook("sglang.srt.managers.scheduler.Scheduler.init_req_max_new_tokens", Kind.AROUND, _limit_the_answer_alone),
        Hook(
            "sglang.srt.disaggregation.decode.DecodePreallocQueue._check_if_req_exceed_kv_capacity",
            Kind.AROUND,
            _never_too_long,
        ),
    )
