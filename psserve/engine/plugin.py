"""SGLang's plugin: what happens in each of its processes before it starts to work.

SGLang calls `load` (entry point of the group `sglang.srt.plugins`) in its HTTP process and in its schedulers. In a
process that is no psserve worker's it does nothing, so `sglang serve` in the same environment stays stock.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch

from psserve.engine import hooks as hooking
from psserve.engine.handover import releases
from psserve.engine.handover.targets import CALLED, CALLED_ON_CPU, functions_of, is_in
from psserve.engine.settings import NegativeControl, Role, Settings
from psserve.engine.versions import SUPPORTED, installed_sglang, require_one_pool, require_supported_sglang
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
    """Apply and check the hooks of a role. Raises UnsupportedSglang, ChangedSglang or HookMissing."""
    version = require_supported_sglang(allow_untested=settings.allow_untested)
    if settings.one_pool:
        require_one_pool(version)
    hooks = declared(settings, version)
    releases.require_fit(
        releases.installed_tree(),
        version,
        targets(settings, hooks, version),
        fields=settings.role is not Role.STOCK,
        allow_untested=settings.allow_untested,
    )
    hooking.apply(hooks, version)


def targets(settings: Settings, hooks: Iterable[hooking.Hook], release: str | None = None) -> set[str]:
    """The functions of SGLang that a process of this role builds on: hooked ones, and those that are called.

    `release`: of SGLang [default: the installed one].
    """
    hooked = {hook.target for hook in hooks if hook.target.startswith("sglang.")}
    called: tuple[str, ...] = () if settings.role is Role.STOCK else CALLED
    called += () if torch.cuda.is_available() else CALLED_ON_CPU
    if settings.one_pool:
        from psserve.engine.onepool import LEANT_ON

        called += LEANT_ON
    return {*hooked, *functions_of(called, release or _release())}


def declared(settings: Settings, release: str | None = None) -> tuple[hooking.Hook, ...]:
    """Every hook that a process of this role needs on this machine.

    `release`: of SGLang [default: the installed one].
    """
    chosen = () if settings.role is Role.STOCK else _ours(settings)
    chosen += _gpu_hooks(settings) if torch.cuda.is_available() else cpu_hooks()
    return tuple(hook for hook in chosen if is_in(hook.target, release or _release()))


def _release() -> str:
    return installed_sglang() or SUPPORTED[-1]


def cpu_hooks() -> tuple[hooking.Hook, ...]:
    """What any server needs on a machine without a GPU."""
    from psserve.engine.cpu import alone, attention, linear, lora, nixl
    from psserve.engine.fixes import spinning

    return (*attention.hooks(), *linear.hooks(), *lora.hooks(), spinning.pause_hook(), *alone.hooks(), *nixl.hooks())


def _gpu_hooks(settings: Settings) -> tuple[hooking.Hook, ...]:
    """What any server needs on GPUs of a machine with few cores."""
    from psserve.engine.fixes import spinning

    return spinning.hooks() if settings.few_cores else ()


def _ours(settings: Settings) -> tuple[hooking.Hook, ...]:
    """What makes a server psserve's, on any machine."""
    from psserve.engine import given, lora
    from psserve.engine.fixes import (
        disconnect,
        grammar,
        json_grammar,
        kv_events,
        last_message,
        logprobs,
        prefill_watch,
        retraction,
        seeds,
        tag_grammar,
        thoughts,
        tool_calls,
    )
    from psserve.engine.handover import decode, prefill, purity

    chosen = disconnect.hooks() + last_message.hooks()
    if settings.negative_control is not NegativeControl.NO_HOOKS:
        chosen += prefill.hooks() if settings.role is Role.PREFILL else decode.hooks(settings.negative_control)
    if settings.role is Role.PREFILL:
        chosen += kv_events.hooks()
    if settings.role is Role.DECODE:
        fixes = (prefill_watch, grammar, json_grammar, tag_grammar, retraction, tool_calls, thoughts, seeds, logprobs)
        chosen += tuple(hook for fix in fixes for hook in fix.hooks()) + given.hooks()
        if settings.adapters is not None:
            chosen += lora.hooks(settings.adapters, settings.negative_control)
    if settings.check_purity:
        chosen += purity.hooks(settings.role)
    if settings.one_pool and settings.role is not None:
        from psserve.engine import onepool

        chosen += onepool.hooks(settings.role, settings.negative_control)
    return chosen
