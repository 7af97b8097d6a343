"""An adapter is unloaded when the last request that runs with it has left the scheduler.

SGLang unloads it when the HTTP process knows of no request for it. But that forgets a request as soon as its client
leaves, while it still runs; and with overlap scheduling a step may be under way for one that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from psserve.engine.handover.sglang.adapters import LoadedAdapter, UnloadRequest
from psserve.engine.handover.sglang.request import Req
from psserve.engine.handover.sglang.scheduler import Scheduler
from psserve.engine.hooks import Hook, Kind


class LateUnloading:
    """What a scheduler has promised to unload. Its names are free at once: they may be loaded anew meanwhile."""

    def __init__(self) -> None:
        self._promised: list[tuple[UnloadRequest, LoadedAdapter]] = []

    def unload_or_promise(
        self, original: Callable[[Scheduler, UnloadRequest], object], scheduler: Scheduler, recv_req: UnloadRequest
    ) -> object:
        """AROUND `Scheduler.unload_lora_adapter`."""
        manager = scheduler.tp_worker.model_runner.lora_manager
        if recv_req.lora_id in manager.lora_refs and recv_req.lora_id in set(adapters_in_use(scheduler)):
            self._promised.append((recv_req, manager.lora_refs.pop(recv_req.lora_id)))
            return manager.create_lora_update_result(success=True)
        return _unload(original, scheduler, recv_req)

    def keep_promises(self, original: Callable[[Scheduler], None], scheduler: Scheduler) -> None:
        """AROUND `process_decode_queue`, which is called between two steps."""
        if self._promised:
            used = set(adapters_in_use(scheduler))
            due = [each for each in self._promised if each[0].lora_id not in used]
            self._promised = [each for each in self._promised if each[0].lora_id in used]
            for request, loaded in due:
                scheduler.tp_worker.model_runner.lora_manager.lora_refs[request.lora_id] = loaded
                scheduler.unload_lora_adapter(request)
        original(scheduler)


def _unload(
    original: Callable[[Scheduler, UnloadRequest], object], scheduler: Scheduler, recv_req: UnloadRequest
) -> object:
    if scheduler.lora_drainer is not None:
        scheduler.lora_drainer.adapter_to_stats.pop(recv_req.lora_id, None)  # SGLang looks through all that ever were
    return original(scheduler, recv_req)


def adapters_in_use(scheduler: Scheduler) -> Iterator[str | None]:
    """Yield the adapter of every request in a decode server's scheduler."""
    waiting, transfer = scheduler.disagg_decode_prealloc_queue, scheduler.disagg_decode_transfer_queue
    started = getattr(scheduler, "result_queue", ())  # there is none without overlap scheduling
    batches = (scheduler.running_batch, scheduler.last_batch, *(batch for batch, _ in started))
    reqs: Iterator[Req] = chain(
        *(batch.reqs for batch in batches if batch is not None),
        *(scheduler.waiting_queue, waiting.retracted_queue, waiting.held_rebootstrap_reqs),
        (each.req for each in chain(waiting.queue, waiting.pending_reqs, transfer.queue)),
        scheduler.grammar_manager.grammar_queue,
    )
    return (req.lora_id for req in reqs)


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs."""
    late = LateUnloading()
    loop = "sglang.srt.disaggregation.decode.SchedulerDisaggregationDecodeMixin.process_decode_queue"
    return (
        Hook("sglang.srt.managers.scheduler.Scheduler.unload_lora_adapter", Kind.AROUND, late.unload_or_promise),
        Hook(loop, Kind.AROUND, late.keep_promises),
    )
