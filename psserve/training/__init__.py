"""Fine-tuning on the base's KV cache, evaluation, and the reference that served answers must equal.

`CacheConditioned` is for trainers of other libraries. It is imported where it is asked for: it brings PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psserve.training.cache_conditioned import CacheConditioned

__all__ = ["CacheConditioned"]


def __getattr__(name: str) -> Any:
    if name == "CacheConditioned":
        from psserve.training.cache_conditioned import CacheConditioned

        return CacheConditioned
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
