"""What differs between the supported releases of SGLang in the objects that hooks touch: one way to treat them all.

A difference is asked of the object, not of the version. Which functions a release has: `targets.py`.
"""

from __future__ import annotations

from typing import Any, cast

from psserve.engine.handover.sglang import members
from psserve.engine.handover.sglang.request import (
    BoundedReq,
    KvRow,
    LockedReq,
    RangedReq,
    Req,
    ReqReasoning,
    ReqSlots,
    ReqThoughtMark,
)

_REASONING = (*members(ReqReasoning), *members(ReqThoughtMark))


def slots_of(req: Req) -> ReqSlots:
    """A request's row and lengths in the KV pool: its own until 0.5.18, those of `req.kv` since 0.5.19."""
    return cast(ReqSlots, req if hasattr(req, "kv_committed_len") else req.kv)


def forget_prompt(req: Req) -> None:
    """Say that nothing of the prompt has KV: by a range until 0.5.21, by two numbers since 0.5.22."""
    if hasattr(req, "set_extend_range"):
        cast(RangedReq, req).set_extend_range(0, 0)
    else:
        bounded = cast(BoundedReq, req)
        bounded.prefix_len = bounded.extend_end = 0


def reasoning_of(req: Req) -> dict[str, object]:
    """How far the request's thought goes, to be given back to `set_reasoning`."""
    return {name: getattr(req, name) for name in _REASONING if hasattr(req, name)}


def set_reasoning(req: Req, reasoning: dict[str, object]) -> None:
    """Undo what SGLang, since 0.5.20, has found in a token that is not the module's."""
    for name, value in reasoning.items():
        setattr(req, name, value)


def holds_empty_row(req: Req) -> bool:
    """Whether the request has a row of the pool and no slot in it, which SGLang takes for a bug since 0.5.19."""
    return bool(getattr(req.kv, "holds_kv", False)) and req.kv.kv_allocated_len == 0


def release_empty_row(req: Req, tree_cache: Any) -> None:
    """What `release_kv_cache` does of a row without slots: unlock the tree, give back the row."""
    if hasattr(tree_cache, "unlock"):
        locked = cast(LockedReq, req)
        tree_cache.unlock(locked.lock)
        locked.lock = None
    else:
        tree_cache.unpin(req)
    tree_cache.req_to_token_pool.free(req)
    cast(KvRow, req.kv).mark_kv_released()


def lock_node(tree_cache: Any, node: Any) -> Any:
    """Keep the path to a node of a radix tree from being evicted until `unlock_node` is given the result."""
    if hasattr(tree_cache, "lock"):
        return tree_cache.lock(node)
    tree_cache.inc_lock_ref(node)
    return node


def unlock_node(tree_cache: Any, lock: Any) -> None:
    """Undo `lock_node`: by the node until 0.5.21, by a receipt since 0.5.22."""
    if hasattr(tree_cache, "unlock"):
        tree_cache.unlock(lock)
    else:
        tree_cache.dec_lock_ref(lock)


def keeps_prefixes(tree_cache: Any) -> bool:
    """Whether it is a radix tree, and not what stands for one where nothing is kept."""
    ask = getattr(tree_cache, "supports_prefix_sharing", None) or tree_cache.is_tree_cache
    return bool(ask())
