"""NIXL between processes without a GPU: KV memory is host memory, and the progress thread must not spin."""

from __future__ import annotations

from typing import Any

from psserve.engine.fixes.spinning import slow_progress_thread
from psserve.engine.handover.sglang.scheduler import KVArgs
from psserve.engine.hooks import Hook, Kind


def _declare_host_memory(manager: object, args: KVArgs, *rest: Any, **kwargs: Any) -> None:
    """BEFORE `NixlKVManager.__init__(args: KVArgs, ...)`: every KV buffer is DRAM."""
    args.kv_data_mem_kinds = ["DRAM"] * len(args.kv_data_ptrs)
    slow_progress_thread()


def hooks() -> tuple[Hook, ...]:
    """The hooks that a server on CPU needs when it transfers through NIXL."""
    return (Hook("sglang.srt.disaggregation.nixl.conn.NixlKVManager.__init__", Kind.BEFORE, _declare_host_memory),)
