"""A scheduler that waits for KV in flight leaves the cores to those that compute and move it.

SGLang's schedulers poll without a pause, and agree over a process group on what each poll found, even where the group
is this process alone. On a few cores the decode servers that wait would take most of the time that prefill needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psserve.engine.handover.sglang import Scheduler
from psserve.engine.hooks import Hook, Kind

_SHORTEST_S = 0.0005
_LONGEST_S = 0.005
_PART = 0.05
"""A pause is this part of the wait so far: by more than that it cannot delay what comes."""


@dataclass
class Wait:
    """How long a scheduler has had nothing to run."""

    batches: int = -1
    """Batches that it had run by then."""
    since: float = 0.0

    def pause_s(self, batches: int, now: float) -> float:
        """How long to sleep before the next poll."""
        if batches != self.batches:
            self.batches, self.since = batches, now
        return min(max(_PART * (now - self.since), _SHORTEST_S), _LONGEST_S)


_WAIT = Wait()  # a process has one scheduler


def _pause_while_waiting(result: None, scheduler: Scheduler, *args: Any) -> None:
    """AFTER `Scheduler.on_idle`: nothing to run, but transfers in flight; fully idle, SGLang sleeps on its sockets."""
    if not scheduler.is_fully_idle():
        time.sleep(_WAIT.pause_s(scheduler.forward_ct, time.monotonic()))


def _all_reduce(
    original: Callable[..., Any], tensor: Any, op: Any = None, group: Any = None, async_op: bool = False
) -> Any:
    """AROUND `torch.distributed.all_reduce`: over one process there is nothing to reduce."""
    import torch.distributed as dist

    if not async_op and dist.get_world_size(group) == 1:
        return None
    return original(tensor, group=group, async_op=async_op, **({} if op is None else {"op": op}))


def hooks() -> tuple[Hook, ...]:
    """The hooks that a server on CPU needs whatever its role."""
    return (
        Hook("sglang.srt.managers.scheduler.Scheduler.on_idle", Kind.AFTER, _pause_while_waiting),
        Hook("torch.distributed.all_reduce", Kind.AROUND, _all_reduce),
    )
