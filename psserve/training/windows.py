"""Layers that see a window of the context alone: a query sees as many tokens as the window is wide, itself included.

Transformers measures windows in columns of the cache. Where columns are not positions (the base's KV before a module's,
rows that are padded on the left), masks are made here, by position.
"""

from __future__ import annotations

import torch

from psserve.training.hf import PreTrainedModel

Masks = torch.Tensor | dict[str, torch.Tensor]
"""Which keys each query sees, [B, 1, Q, K]; by kind of layer, as Transformers calls them, where these differ."""


def window_of(model: PreTrainedModel) -> int | None:
    """The window of the layers that have one, in tokens; None if all layers see the whole context."""
    has_windows = "sliding_attention" in (getattr(model.config, "layer_types", None) or ())
    return int(model.config.sliding_window) if has_windows else None


def masks(seen: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor, window: int | None) -> Masks:
    """What queries see that would see `seen` [B, Q, K] in whole; `queries` [B, Q] and `keys` [B, K] are positions."""
    if window is None:
        return seen[:, None]
    near = queries[:, :, None] - keys[:, None, :] < window
    return {"full_attention": seen[:, None], "sliding_attention": (seen & near)[:, None]}
