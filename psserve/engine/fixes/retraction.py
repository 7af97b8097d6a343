"""A retracted request neither leaks slots when it is resumed nor loses its first log-probability.

Retraction takes the KV of running requests away when a decode server has no slots left. SGLang before 0.5.21 has a leak
on the way back, and with overlap scheduling every release streams a request that was retracted before its first token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from psserve.engine.handover.differences import slots_of
from psserve.engine.handover.sglang.request import Req
from psserve.engine.handover.sglang.scheduler import PreallocQueue
from psserve.engine.handover.sglang.trees import NodeTree
from psserve.engine.hooks import Hook, Kind


def _resume_as_sole_owner(
    original: Callable[..., list[Req]], queue: PreallocQueue, *args: Any, **kwargs: Any
) -> list[Req]:
    """Resume retracted requests as owners of all their KV.

    Stock SGLang lets a resumed request match the radix tree after it has allocated slots for the whole prompt: the
    slots under the match leak, and a node that nobody locked is unlocked at the end. A request whose `last_node` is
    the root neither matches nor unlocks anything; it frees exactly what it allocated.
    """
    resumed = original(queue, *args, **kwargs)
    for req in resumed:
        req.last_node = cast(NodeTree, queue.tree_cache).root_node
        slots_of(req).cache_protected_len = 0
    return resumed


def _stream_only_output(
    streamer: object, reqs: list[Req], *args: Any, **kwargs: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Leave out requests that have nothing to say yet (BEFORE `stream_output`).

    With overlap scheduling a request that is retracted in its first step passes here without output. SGLang would
    count a log-probability as sent that is yet to come.
    """
    return (streamer, [req for req in reqs if req.output_ids or req.finished()], *args), kwargs


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs."""
    return (
        Hook(
            "sglang.srt.disaggregation.decode.DecodePreallocQueue.resume_retracted_reqs",
            Kind.AROUND,
            _resume_as_sole_owner,
        ),
        Hook(
            "sglang.srt.managers.scheduler_components.output_streamer.SchedulerOutputStreamer.stream_output",
            Kind.BEFORE,
            _stream_only_output,
        ),
    )
