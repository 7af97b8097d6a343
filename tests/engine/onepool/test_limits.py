"""A prompt may be longer than a decode server's own pool; an answer ends where a pool that is too small ends it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.managers.scheduler import Scheduler  # noqa: E402

from psserve.engine.cpu.allocator import allocator_class  # noqa: E402
from psserve.engine.onepool.limits import _limit_the_answer_alone  # noqa: E402

OWN, PAGE, CONTEXT = 1024, 16, 4096


@pytest.mark.parametrize(
    ("prompt", "asked", "granted"),
    [
        (10, 50, 50),
        (1500, OWN * 7 // 8, OWN * 7 // 8),
        (1500, OWN, OWN * 7 // 8),
        (10, None, OWN * 7 // 8),
        (CONTEXT - 11, 50, 9),
    ],
)
def test_an_answer_may_have_what_the_own_pool_and_the_context_hold(
    prompt: int, asked: int | None, granted: int
) -> None:
    allocator = allocator_class(OWN, page_size=PAGE, dtype=torch.float32, device="cpu", kvcache=None, need_sort=False)
    scheduler = SimpleNamespace(
        max_new_tokens_limit=None,
        max_req_len=CONTEXT - 1,
        max_total_num_tokens=OWN,
        kv_shard_widening=1,
        page_size=PAGE,
        sliding_window_size=None,
        chunked_prefill_size=2048,
        token_to_kv_pool_allocator=allocator,
    )
    sampling = SimpleNamespace(max_new_tokens=asked, min_new_tokens=asked or 0)
    req = SimpleNamespace(rid="1", origin_input_ids=[0] * prompt, sampling_params=sampling)
    _limit_the_answer_alone(Scheduler.init_req_max_new_tokens, scheduler, req)
    assert sampling.max_new_tokens == granted
    assert sampling.min_new_tokens <= granted
    assert scheduler.max_total_num_tokens == OWN
