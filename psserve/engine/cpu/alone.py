"""A scheduler that is alone in its process group has nobody to agree with.

SGLang's schedulers agree over a process group on what each poll found, even where the group is this process alone: on a
few cores that takes a tenth of the time that prefill needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psserve.engine.hooks import Hook, Kind


def _all_reduce(
    original: Callable[..., Any], tensor: Any, op: Any = None, group: Any = None, async_op: bool = False
) -> Any:
    """AROUND `torch.distributed.all_reduce`: over one process there is nothing to reduce."""
    import torch.distributed as dist

    if not async_op and dist.get_world_size(group) == 1:
        return None
    return original(tensor, group=group, async_op=async_op, **({} if op is None else {"op": op}))


def hooks() -> tuple[Hook, ...]:
    """The hooks that a server on CPU needs whatever its role."""
    return (Hook("torch.distributed.all_reduce", Kind.AROUND, _all_reduce),)
