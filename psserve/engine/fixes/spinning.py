"""Threads that would spin leave the cores to those that compute and move KV: where cores are few for the servers.

SGLang's schedulers poll without a pause while KV is in flight, and so does NIXL's progress thread (`pthrDelay = 0` in
nixl's Python API): it starves the very transfers that it is there for. The decode servers that wait would take most of
the time that prefill needs.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from psserve.engine.handover.sglang.scheduler import Scheduler
from psserve.engine.hooks import Hook, Kind

_SHORTEST_S = 0.0005
_LONGEST_S = 0.005
_PROGRESS_DELAY_US = 500
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
_COME = threading.Event()


def end_pause() -> None:
    """Let the scheduler look again at once: something has come. May be called from any thread."""
    _COME.set()


def _pause_while_waiting(result: None, scheduler: Scheduler, *args: Any) -> None:
    """AFTER `Scheduler.on_idle`: nothing to run, but transfers in flight; fully idle, SGLang sleeps on its sockets."""
    if not scheduler.is_fully_idle():
        _COME.wait(_WAIT.pause_s(scheduler.forward_ct, time.monotonic()))
        _COME.clear()


def slow_progress_thread() -> None:
    """Let the progress threads of NIXL agents made from now on pause between polls."""
    from nixl._api import nixlBind

    config_class = nixlBind.nixlAgentConfig
    if hasattr(config_class, "psserve_delay"):
        return
    delay = config_class.pthrDelay

    class PatientAgentConfig(config_class):  # type: ignore[misc,valid-type]
        """nixlAgentConfig whose progress thread pauses between polls."""

        psserve_delay = _PROGRESS_DELAY_US
        pthrDelay = property(
            lambda self: delay.__get__(self),
            lambda self, value: delay.__set__(self, max(value, self.psserve_delay)),
        )

    nixlBind.nixlAgentConfig = PatientAgentConfig


def _before_nixl(*args: Any, **kwargs: Any) -> None:
    """BEFORE `NixlKVManager.__init__`, which makes the agent."""
    slow_progress_thread()


def pause_hook() -> Hook:
    """What keeps a waiting scheduler from spinning."""
    return Hook("sglang.srt.managers.scheduler.Scheduler.on_idle", Kind.AFTER, _pause_while_waiting)


def hooks() -> tuple[Hook, ...]:
    """The hooks of a server on GPUs whose machine has few cores for it, whatever its role."""
    return (
        pause_hook(),
        Hook("sglang.srt.disaggregation.nixl.conn.NixlKVManager.__init__", Kind.BEFORE, _before_nixl),
    )
