"""Penalties count what the module emitted, and the prompt's last token is not that.

Before a decode step SGLang counts each request's last token as output. For a request without output it takes the
prompt's last token instead (sglang/srt/managers/schedule_batch.py, `cumulate_penalty_output_tokens`), which in stock
SGLang hardly happens on a decode server; here it is every request's first step.
"""

from __future__ import annotations

from collections.abc import Callable

from psserve.engine.handover.sglang.scheduler import Batch
from psserve.engine.handover.targets import PENALTY_COUNTERS


def cumulate_emitted_tokens_only(original: Callable[[Batch], None], batch: Batch) -> None:
    """Count last tokens as SGLang does, then put the counters of requests without output back as they were."""
    rows = [row for row, req in enumerate(batch.reqs) if not req.output_ids]
    if not rows:
        original(batch)
        return
    counters = [
        getattr(penalizer, name)
        for penalizer in batch.sampling_info.penalizer_orchestrator.penalizers.values()
        for name in PENALTY_COUNTERS.values()
        if hasattr(penalizer, name)
    ]
    before = [counter[rows].clone() for counter in counters]
    original(batch)
    for counter, saved in zip(counters, before, strict=True):
        counter[rows] = saved
