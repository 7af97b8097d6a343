"""LoRA adapters on a CPU: no pinned memory, and one pass over a batch for each adapter in it.

SGLang's `torch_native` LoRA backend asks for pinned memory, which only a GPU's driver gives. It also goes through a
batch in runs of neighbours with one adapter, in Python: 16 requests that alternate 4 adapters are 16 runs, in each
layer. Sorted by adapter they are 4, and a step takes a ninth of the time. Sums are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from psserve.engine.handover.sglang.adapters import AdapterBatch
from psserve.engine.hooks import Hook, Kind


class _Unpinned(TorchFunctionMode):
    """PyTorch without pinned memory: factories do not hear `pin_memory=True`, and a tensor pins to itself."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "pin_memory":
            return args[0]
        return func(*args, **{name: value for name, value in (kwargs or {}).items() if name != "pin_memory"})


def _without_pinning(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with _Unpinned():
        return original(*args, **kwargs)


@dataclass(frozen=True)
class Segment:
    """Tokens [start, stop) of a batch sorted by adapter, and the adapter that they share."""

    start: int
    stop: int
    slot: int
    """The adapter's place in the buffers of weights."""
    rank: int
    scale: float


@dataclass(frozen=True)
class Sorted:
    """A batch sorted by adapter. Tokens without an adapter are in no segment."""

    order: torch.Tensor
    """int64 [tokens]: where each came from."""
    segments: tuple[Segment, ...]


def sort(batch: AdapterBatch) -> Sorted:
    """Put together what shares an adapter."""
    slots = torch.repeat_interleave(batch.weight_indices_cpu, batch.seg_lens_cpu)
    order = torch.argsort(slots, stable=True)
    found, counts = torch.unique_consecutive(slots[order], return_counts=True)
    ranks, scales = batch.lora_ranks_cpu.tolist(), batch.scalings_cpu.tolist()
    segments, start = [], 0
    for slot, count in zip(found.tolist(), counts.tolist(), strict=True):
        if ranks[slot]:
            segments.append(Segment(start, start + count, slot, ranks[slot], scales[slot]))
        start += count
    return Sorted(order, tuple(segments))


class SortedProducts:
    """Both products of every adapter's layers. A batch goes through many layers, and is sorted once."""

    def __init__(self) -> None:
        self._last: tuple[AdapterBatch, Sorted] | None = None

    def a(
        self,
        original: Callable[..., torch.Tensor],
        inputs: torch.Tensor,
        weights: torch.Tensor,
        batch_info: AdapterBatch,
        num_slices: int = 1,
    ) -> torch.Tensor:
        """AROUND `sgemm_lora_a_fwd`: [tokens, in] times [slots, slices x rank, in], scaled."""
        if weights.numel() == 0:
            return original(inputs, weights, batch_info, num_slices)
        batch = self._sorted(batch_info)
        taken = inputs.index_select(0, batch.order)
        result = inputs.new_zeros(inputs.shape[0], weights.shape[1])
        for segment in batch.segments:
            rows, width = slice(segment.start, segment.stop), num_slices * segment.rank
            result[rows, :width].addmm_(taken[rows], weights[segment.slot, :width].T, beta=0, alpha=segment.scale)
        return torch.empty_like(result).index_copy_(0, batch.order, result)

    def b(
        self,
        original: Callable[..., torch.Tensor],
        inputs: torch.Tensor,
        weights: torch.Tensor,
        batch_info: AdapterBatch,
        slice_offsets: torch.Tensor,
        base_output: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """AROUND `sgemm_lora_b_fwd`: [tokens, slices x rank] times [slots, out, rank], added to the base's output."""
        if weights.numel() == 0 or base_output is None:
            return original(inputs, weights, batch_info, slice_offsets, base_output)
        batch = self._sorted(batch_info)
        taken, result = inputs.index_select(0, batch.order), base_output.index_select(0, batch.order)
        offsets = slice_offsets.tolist()
        for segment in batch.segments:
            rows = slice(segment.start, segment.stop)
            for part, (first, last) in enumerate(pairwise(offsets)):
                left = taken[rows, part * segment.rank : (part + 1) * segment.rank]
                result[rows, first:last].addmm_(left, weights[segment.slot, first:last, : segment.rank].T)
        return base_output.index_copy_(0, batch.order, result)

    def _sorted(self, batch: AdapterBatch) -> Sorted:
        if self._last is None or self._last[0] is not batch:
            self._last = batch, sort(batch)
        return self._last[1]


def hooks() -> tuple[Hook, ...]:
    """The hooks that a server on CPU needs whatever its role; without adapters they are never called."""
    products, operators = SortedProducts(), "sglang.srt.lora.torch_ops"
    backend = "sglang.srt.lora.backend.torch_backend.TorchNativeLoRABackend"
    return (
        Hook("sglang.srt.lora.lora_manager.LoRAManager.__init__", Kind.AROUND, _without_pinning),
        Hook(f"{backend}.prepare_lora_batch", Kind.AROUND, _without_pinning),
        Hook(f"{operators}.sgemm_lora_a_fwd", Kind.AROUND, products.a),
        Hook(f"{operators}.sgemm_lora_b_fwd", Kind.AROUND, products.b),
    )
