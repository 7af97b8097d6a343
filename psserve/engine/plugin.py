"""SGLang's plugin: what happens in each of its processes before it starts to work.

SGLang calls `load` (entry point of the group `sglang.srt.plugins`) in its HTTP process and in its schedulers. In a
process that is no psserve worker's it does nothing, so `sglang serve` in the same environment stays stock.
"""

from __future__ import annotations

import sys

from psserve.engine import hooks as hooking
from psserve.engine.settings import NegativeControl, Role, Settings
from psserve.engine.versions import require_supported_sglang
from psserve.errors import EngineError

loaded = False


def load() -> None:
    """Hook SGLang for this process's role, or end the process.

    SGLang logs an exception raised here and goes on without the plugin, which would serve wrong answers; it does not
    catch SystemExit.
    """
    global loaded
    try:
        settings = Settings.from_environment()
        if settings.role is not None:
            install(settings)
            loaded = True
    except Exception as error:  # noqa: BLE001 - whatever went wrong, going on without hooks is worse
        kind = "" if isinstance(error, EngineError) else f"{type(error).__name__}: "
        print(f"psserve: error: {kind}{error}", file=sys.stderr, flush=True)
        sys.exit(1)


def install(settings: Settings) -> None:
    """Apply and check the hooks of a role. Raises UnsupportedSglang or HookMissing."""
    version = require_supported_sglang(allow_untested=settings.allow_untested)
    hooking.apply(declared(settings), version)


def declared(settings: Settings) -> tuple[hooking.Hook, ...]:
    """Every hook that a process of this role needs on this machine."""
    import torch

    chosen = () if settings.role is Role.STOCK else _ours(settings)
    if not torch.cuda.is_available():
        from psserve.engine.cpu import attention as cpu_attention
        from psserve.engine.cpu import nixl
        from psserve.engine.cpu import waiting as cpu_waiting

        chosen += cpu_attention.hooks() + cpu_waiting.hooks() + nixl.hooks()
    return chosen


def _ours(settings: Settings) -> tuple[hooking.Hook, ...]:
    """What makes a server psserve's, on any machine."""
    from psserve.engine.fixes import disconnect, grammar, kv_events, prefill_watch, retraction
    from psserve.engine.handover import decode, prefill

    chosen = disconnect.hooks()
    if settings.negative_control is not NegativeControl.NO_HOOKS:
        chosen += prefill.hooks() if settings.role is Role.PREFILL else decode.hooks(settings.negative_control)
    if settings.role is Role.PREFILL:
        chosen += kv_events.hooks()
    if settings.role is Role.DECODE:
        chosen += prefill_watch.hooks() + grammar.hooks() + retraction.hooks()
    return chosen
