"""Lets a test look into a server (`tests.e2e.forked_launch` installs it where a fleet asks for it).

When a scheduler is idle and the file `dump-please` lies in its TMPDIR, it writes every path of its radix tree, with the
KV that the tree holds for it, to `tree-<server's port>.pt`: [(token ids, keys, values)], keys and values of shape
[layers, tokens, kv heads, head dim].
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

ASKED_BY = "PSSERVE_TEST_TREE_DUMP"
"""Variable in the environment of servers that show their trees."""


def install() -> None:
    """Make `Scheduler.on_idle` dump first, in this process and those forked from it."""
    from sglang.srt.managers.scheduler import Scheduler

    on_idle = Scheduler.on_idle

    def dump_then_idle(scheduler: Any) -> None:
        _dump_on_request(scheduler)
        on_idle(scheduler)

    Scheduler.on_idle = dump_then_idle


def _dump_on_request(scheduler: Any) -> None:
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
        tokens, slots = tokens + list(node.key or ()), slots + [int(slot) for slot in _slots_of(node)]
        if not node.children and tokens:
            keys, values = (
                torch.stack([layer[slots] for layer in buffer]) for buffer in (pool.k_buffer, pool.v_buffer)
            )
            found.append((tokens, keys, values))
        for child in node.children.values():
            walk(child, tokens, slots)

    walk(scheduler.tree_cache.root_node, [], [])
    return found


def _slots_of(node: Any) -> Any:
    """A node's own, or, since SGLang 0.5.19, those of its first component: the KV of all layers."""
    held = node.component_data[0].value if hasattr(node, "component_data") else node.value
    return () if held is None else held
