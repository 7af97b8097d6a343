"""Hundreds of LoRA adapters on one decode server, over one tree of base KV.

A decode server that serves adapters has the base's weights and SGLang's multi-LoRA. All KV that comes in is the base's,
so it is every adapter's: they share the radix tree, the KV pool, and each step's batch. What SGLang lacks for that, by
the way of a request:

    HTTP process
    1  name         TokenizerManager._resolve_lora_path         -> folder: an adapter is loaded by its first request,
                                                                   from the fleet's folder and no other place
    2  room         LoRARegistry.lru_lora_name                  -> folder: the one that goes for it is idle
    scheduler
    3  receive      Req.__init__                                -> tree: its adapter is no part of its key
    4  batch        (a decode server's).get_new_prebuilt_batch  -> slots: no more adapters than a batch has slots for
    5  unload       Scheduler.unload_lora_adapter               -> unloading: not under requests that still run

A request whose client leaves, or whose prompt is refused, must be counted out: `fixes/disconnect.py`. What a CPU
needs: `cpu/lora.py`. That a name, `NAME@EDITION`, never comes to mean something else is the fleet's to keep.
"""

from __future__ import annotations

from pathlib import Path

from psserve.engine.hooks import Hook
from psserve.engine.lora import folder, slots, tree, unloading
from psserve.engine.settings import NegativeControl


def hooks(adapters: Path, negative_control: NegativeControl) -> tuple[Hook, ...]:
    """The hooks of a decode server that serves the adapters in a folder."""
    shared = () if negative_control is NegativeControl.ADAPTER_IN_KEY else tree.hooks()
    return (*folder.hooks(adapters), *shared, *slots.hooks(), *unloading.hooks())
