"""A batch has no more adapters than there are slots for their weights.

SGLang before 0.5.20 looks at that where it admits prompts, which a decode server never does: one adapter too many ends
its scheduler. Later releases look before they ask for KV, but let no adapter make room for one that waits.
The base counts as an adapter, if a request for it is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psserve.engine.handover.sglang.request import Req
from psserve.engine.handover.sglang.scheduler import Batch, Scheduler
from psserve.engine.hooks import Hook, Kind


def _admit_what_has_a_slot(
    original: Callable[[Scheduler, Batch], Any], scheduler: Scheduler, running_batch: Batch
) -> Any:
    """AROUND `get_new_prebuilt_batch`: requests whose adapters do not fit go on waiting, with their KV, in order."""
    if not scheduler.waiting_queue:
        return original(scheduler, running_batch)
    scheduler.waiting_queue, held = _split(scheduler, running_batch)
    try:
        return original(scheduler, running_batch)
    finally:
        scheduler.waiting_queue[:0] = held


def _split(scheduler: Scheduler, running_batch: Batch) -> tuple[list[Req], list[Req]]:
    """Of the requests that wait: those that may join the batch, and those that may not."""
    drainer, manager = scheduler.lora_drainer, scheduler.tp_worker.model_runner.lora_manager
    if drainer is not None:
        drainer.update_draining_state(scheduler.waiting_queue, running_batch.reqs)
    adapters = {req.lora_id for req in running_batch.reqs if not req.finished()}
    admitted: list[Req] = []
    held: list[Req] = []
    for req in scheduler.waiting_queue:
        fits = req.lora_id in adapters or manager.validate_lora_batch(adapters | {req.lora_id})
        if fits and (drainer is None or drainer.can_schedule(req)):
            adapters.add(req.lora_id)
            admitted.append(req)
        else:
            held.append(req)
    return admitted, held


def _leave_it_to_batches(original: Callable[..., bool], *args: Any) -> bool:
    """AROUND `Scheduler.can_schedule_lora_req`: nothing waits before its KV is asked for."""
    return True


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs, with an SGLang that has their targets."""
    batches = "sglang.srt.disaggregation.decode.SchedulerDisaggregationDecodeMixin.get_new_prebuilt_batch"
    return (
        Hook(batches, Kind.AROUND, _admit_what_has_a_slot),
        Hook("sglang.srt.managers.scheduler.Scheduler.can_schedule_lora_req", Kind.AROUND, _leave_it_to_batches),
    )
