"""LoRA on a CPU gives what SGLang's own loop gives, and asks for no pinned memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.lora import torch_ops  # noqa: E402
from sglang.srt.lora.backend.torch_backend import TorchNativeLoRABackend, TorchNativeLoRABatchInfo  # noqa: E402
from sglang.srt.model_executor.forward_batch_info import ForwardMode  # noqa: E402

from psserve.engine.cpu import lora as cpu_lora  # noqa: E402
from psserve.engine.cpu.lora import Segment, SortedProducts, sort  # noqa: E402
from tests.engine.hooked import hooked  # noqa: E402

RANKS = (0, 4, 2, 4, 1)
"""Of each slot; the first is the base's."""
WIDTH = 24


def batch_of(*runs: tuple[int, int]) -> Any:
    """A batch of (slot, tokens) runs."""
    unused: dict[str, Any] = dict.fromkeys(("seg_lens", "seg_indptr", "weight_indices", "lora_ranks", "scalings"))
    return TorchNativeLoRABatchInfo(
        **unused,
        use_cuda_graph=False,
        bs=len(runs),
        num_segments=len(runs),
        max_len=max(tokens for _, tokens in runs),
        permutation=None,
        weight_indices_cpu=torch.tensor([slot for slot, _ in runs], dtype=torch.int32),
        seg_lens_cpu=torch.tensor([tokens for _, tokens in runs], dtype=torch.int32),
        lora_ranks_cpu=torch.tensor(RANKS, dtype=torch.int32),
        scalings_cpu=torch.tensor([0.0, 2.0, 0.5, 1.0, 3.0]),
    )


BATCHES = {
    "one adapter": ((3, 5),),
    "the base alone": ((0, 4),),
    "alternating": ((1, 1), (2, 1), (1, 1), (3, 1), (0, 1), (4, 1), (2, 1), (1, 1)),
    "a run of none": ((2, 3), (1, 0), (2, 1)),
}


@pytest.mark.parametrize("offsets", [(0, 16), (0, 16, 24, 32)], ids=["one layer", "three layers together"])
@pytest.mark.parametrize("runs", BATCHES.values(), ids=BATCHES)
def test_products_are_those_of_sglangs_loop(runs: tuple[tuple[int, int], ...], offsets: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    slices, tokens = len(offsets) - 1, sum(count for _, count in runs)
    left = torch.randn(len(RANKS), slices * max(RANKS), WIDTH, generator=generator)
    right = torch.randn(len(RANKS), offsets[-1], max(RANKS), generator=generator)
    inputs = torch.randn(tokens, WIDTH, generator=generator)
    base = torch.randn(tokens, offsets[-1], generator=generator)
    products, batch, places = SortedProducts(), batch_of(*runs), torch.tensor(offsets)

    expected_a = torch_ops.sgemm_lora_a_fwd(inputs, left, batch, slices)
    found_a = products.a(None, inputs, left, batch, slices)
    torch.testing.assert_close(found_a, expected_a)
    expected_b = torch_ops.sgemm_lora_b_fwd(expected_a, right, batch, places, base.clone())
    output = base.clone()
    assert products.b(None, expected_a, right, batch, places, output) is output
    torch.testing.assert_close(output, expected_b)


def test_a_batch_is_sorted_by_adapter_in_order_and_the_base_is_left_alone() -> None:
    found = sort(batch_of((2, 1), (0, 2), (1, 1), (2, 1)))
    assert found.order.tolist() == [1, 2, 3, 0, 4]
    assert found.segments == (Segment(2, 3, 1, 4, 2.0), Segment(3, 5, 2, 2, 0.5))


def test_each_batch_is_sorted_anew() -> None:
    products, weights = SortedProducts(), torch.ones(len(RANKS), max(RANKS), WIDTH)
    inputs = torch.ones(1, WIDTH)
    scaled = [products.a(None, inputs, weights, batch_of((slot, 1)))[0, 0].item() for slot in (1, 2, 0, 4)]
    assert scaled == [2.0 * WIDTH, 0.5 * WIDTH, 0.0, 3.0 * WIDTH]


def test_nothing_is_pinned() -> None:
    with hooked(cpu_lora.hooks()):
        backend = TorchNativeLoRABackend(len(RANKS), torch.device("cpu"))
        batch: Any = type("Batch", (), {"batch_size": 3, "forward_mode": ForwardMode.DECODE})()
        backend.prepare_lora_batch(batch, [1, 2, 1], list(RANKS), [1.0] * len(RANKS), use_cuda_graph=False)
    assert backend.batch_info.weight_indices_cpu.tolist() == [1, 2, 1]
