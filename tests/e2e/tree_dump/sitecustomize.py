"""Lets a test look into a server: put this folder on a fleet's PYTHONPATH.

When a scheduler is idle and the file `dump-please` lies in its TMPDIR, it writes every path of its radix tree, with the
KV that the tree holds for it, to `tree-<server's port>.pt`: [(token ids, keys, values)], keys and values of shape
[layers, tokens, kv heads, head dim].
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

_MODULE = "sglang.srt.managers.scheduler"


def dump_on_request(scheduler: Any) -> None:
    folder = Path(tempfile.gettempdir())
    target = folder / f"tree-{scheduler.server_args.port}.pt"
    if (folder / "dump-please").exists() and not target.exists():
        import torch

        unfinished = target.with_suffix(".part")
        torch.save(_paths(scheduler), unfinished)
        unfinished.rename(target)


def _paths(scheduler: Any) -> list[Any]:
    import torch

    pool = scheduler.token_to_kv_pool_allocator.get_kvcache()
    found = []

    def walk(node: Any, tokens: list[int], slots: list[int]) -> None:
        tokens, slots = tokens + list(node.key or ()), slots + [int(slot) for slot in node.value]
        if not node.children and tokens:
            keys, values = (
                torch.stack([layer[slots] for layer in buffer]) for buffer in (pool.k_buffer, pool.v_buffer)
            )
            found.append((tokens, keys, values))
        for child in node.children.values():
            walk(child, tokens, slots)

    walk(scheduler.tree_cache.root_node, [], [])
    return found


class _Patcher(importlib.abc.MetaPathFinder):
    """Makes `Scheduler.on_idle` dump first, as soon as SGLang's scheduler is imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        loader: Any = spec.loader
        load = loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            on_idle = module.Scheduler.on_idle

            def dump_then_idle(scheduler: Any) -> None:
                dump_on_request(scheduler)
                on_idle(scheduler)

            module.Scheduler.on_idle = dump_then_idle

        loader.exec_module = exec_module
        return spec


if os.environ.get("PSSERVE_TEST_TREE_DUMP") == "1":
    sys.meta_path.insert(0, _Patcher())
