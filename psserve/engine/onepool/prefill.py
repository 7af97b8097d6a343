"""Hooks of a prefill server that lends its KV."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import zmq

from psserve.engine.handover.sglang.one_pool import PoolReq, PoolScheduler
from psserve.engine.hooks import Hook, Kind
from psserve.engine.onepool import pool
from psserve.engine.settings import NegativeControl

_CHECKER = "sglang.srt.managers.scheduler_components.invariant_checker.SchedulerInvariantChecker"
_MIXIN = "sglang.srt.disaggregation.prefill.SchedulerDisaggregationPrefillMixin"


def _classes(original: Callable[[Any, Any], Any], backend: Any, kind: Any) -> Any:
    """AROUND `get_kv_class`: what moves KV, in place of NIXL's."""
    from sglang.srt.disaggregation.common.conn import CommonKVBootstrapServer
    from sglang.srt.disaggregation.utils import KVClassType, TransferBackend

    if backend == TransferBackend.FAKE:  # SGLang's own probes
        return original(backend, kind)
    from psserve.engine.onepool.lender import LendingManager, LendingSender

    ours = {
        KVClassType.MANAGER: LendingManager,
        KVClassType.SENDER: LendingSender,
        KVClassType.BOOTSTRAP_SERVER: CommonKVBootstrapServer,
    }
    return ours.get(kind) or original(TransferBackend.FAKE, kind)


def _manager(scheduler: PoolScheduler) -> Any:
    return scheduler.disagg_prefill_bootstrap_queue.kv_manager


class _Lending:
    """Locks what is lent, but for NegativeControl.NO_LEASE."""

    def __init__(self, negative_control: NegativeControl) -> None:
        self._tree = _NoLocks() if negative_control is NegativeControl.NO_LEASE else None

    def lend_and_send(
        self,
        original: Callable[..., None],
        scheduler: PoolScheduler,
        req: PoolReq,
        last_chunk: bool = False,
        end_idx: int | None = None,
    ) -> None:
        """AROUND `send_kv_chunk`: pages are locked before their reader hears of them."""
        if last_chunk:
            _manager(scheduler).lend(self._tree or scheduler.tree_cache, req)
        original(scheduler, req, last_chunk, end_idx)

    def take_back(self, scheduler: PoolScheduler, *args: Any, **kwargs: Any) -> None:
        """BEFORE `process_disagg_prefill_inflight_queue`, which the scheduler's loop calls in each turn."""
        parts = scheduler.attn_tp_cpu_group
        is_split = torch.distributed.get_world_size(parts) > 1
        _manager(scheduler).take_back(self._tree or scheduler.tree_cache, parts if is_split else None)


class _NoLocks:
    """Stands for a tree whose nodes are not kept."""

    def lock(self, node: object) -> None:
        """Do nothing."""

    def unlock(self, lock: None) -> None:
        """Do nothing."""


class _Idle:
    """A server that runs nothing but lends sleeps as any other that runs nothing. To all else it is busy."""

    def __init__(self) -> None:
        self._nothing_runs = False
        self._lends = False

    def sleep(self, original: Callable[..., None], scheduler: PoolScheduler) -> None:
        """AROUND `on_idle`, which checks the pool (lent pages are locked ones), and sleeps until a request comes."""
        manager = _manager(scheduler)
        if scheduler.idle_sleeper is not None:
            scheduler.idle_sleeper.poller.register(manager.waker, zmq.POLLIN)
        self._nothing_runs, self._lends = True, bool(len(manager.leases))
        try:
            original(scheduler)
        finally:
            self._nothing_runs = False
            manager.waker.clear()

    def check_tree(self, original: Callable[[Any], None], checker: Any) -> None:
        """AROUND `_check_tree_cache`, for which nothing may be locked: not while pages are lent."""
        if not self._lends:
            original(checker)

    def is_fully_idle(
        self, original: Callable[..., bool], scheduler: PoolScheduler, for_health_check: bool = False, **options: bool
    ) -> bool:
        """AROUND `is_fully_idle`: an idle server may drop its tree."""
        idle = original(scheduler, for_health_check, **options)
        return idle and (for_health_check or self._nothing_runs or not len(_manager(scheduler).leases))


def hooks(negative_control: NegativeControl) -> tuple[Hook, ...]:
    """The hooks that a prefill server needs."""
    lending, idle = _Lending(negative_control), _Idle()
    return (
        Hook("sglang.srt.disaggregation.utils.get_kv_class", Kind.AROUND, _classes),
        *pool.LENDING,
        Hook(f"{_MIXIN}.send_kv_chunk", Kind.AROUND, lending.lend_and_send),
        Hook(f"{_MIXIN}.process_disagg_prefill_inflight_queue", Kind.BEFORE, lending.take_back),
        Hook("sglang.srt.managers.scheduler.Scheduler.on_idle", Kind.AROUND, idle.sleep),
        Hook("sglang.srt.managers.scheduler.Scheduler.is_fully_idle", Kind.AROUND, idle.is_fully_idle),
        Hook(f"{_CHECKER}._check_tree_cache", Kind.AROUND, idle.check_tree),
    )
