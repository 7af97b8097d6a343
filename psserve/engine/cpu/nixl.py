"""NIXL between processes without a GPU: KV memory is host memory, and the progress thread must not spin."""

from __future__ import annotations

from typing import Any

from psserve.engine.handover.sglang import KVArgs
from psserve.engine.hooks import Hook, Kind

# NIXL's progress thread polls without a pause (`pthrDelay = 0` in nixl's Python API). On a few cores that starves the
# transfers it is there for.
_PROGRESS_DELAY_US = 500


def _declare_host_memory(manager: object, args: KVArgs, *rest: Any, **kwargs: Any) -> None:
    """BEFORE `NixlKVManager.__init__(args: KVArgs, ...)`: every KV buffer is DRAM."""
    args.kv_data_mem_kinds = ["DRAM"] * len(args.kv_data_ptrs)
    _slow_progress_thread()


def _slow_progress_thread() -> None:
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


def hooks() -> tuple[Hook, ...]:
    """The hooks that a server on CPU needs when it transfers through NIXL."""
    return (Hook("sglang.srt.disaggregation.nixl.conn.NixlKVManager.__init__", Kind.BEFORE, _declare_host_memory),)
