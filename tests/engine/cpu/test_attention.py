"""The CPU's attention gives what SGLang's own gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend  # noqa: E402

from psserve.engine.cpu import attention as cpu_attention  # noqa: E402

HEADS, KV_HEADS, DIM, SLOTS = 4, 2, 16, 2_000
OPTIONS = {"scaling": 0.3, "enable_gqa": True, "causal": True}


class Case:
    """Requests with (cached, new) tokens each, their slots scattered over the pool."""

    def __init__(self, *requests: tuple[int, int]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.keys, self.values = (torch.randn(SLOTS, KV_HEADS, DIM, generator=generator) for _ in range(2))
        self.prefixes = torch.tensor([cached for cached, _ in requests])
        self.new = torch.tensor([new for _, new in requests])
        self.totals = self.prefixes + self.new
        self.slots = torch.zeros(len(requests) + 1, int(self.totals.max()), dtype=torch.int32)
        self.rows = torch.arange(len(requests), 0, -1)
        free = torch.randperm(SLOTS, generator=generator).to(torch.int32)
        for row, total in zip(self.rows.tolist(), self.totals.tolist(), strict=True):
            self.slots[row, :total], free = free[:total], free[total:]
        self.query = torch.randn(int(self.new.sum()), HEADS, DIM, generator=generator)

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        return (self.keys, self.values, self.slots, self.rows, self.totals)


def stock() -> Any:
    return TorchNativeAttnBackend.__new__(TorchNativeAttnBackend)


@pytest.mark.parametrize(
    "requests",
    [[(0, 7)], [(5, 1)], [(0, 300)], [(700, 300)], [(40, 3), (0, 5), (16, 257)]],
    ids=["new", "one more token", "new, more than a block", "cached, more than a block", "several"],
)
def test_new_tokens_see_all_before_them(requests: list[tuple[int, int]]) -> None:
    case = Case(*requests)
    arguments = (*case.inputs, case.prefixes, case.new)
    expected = stock()._run_sdpa_forward_extend(case.query, torch.empty_like(case.query), *arguments, **OPTIONS)
    found = cpu_attention._extend(unused, None, case.query, torch.empty_like(case.query), *arguments, **OPTIONS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_decoded_token_sees_all_before_it() -> None:
    case = Case((40, 1), (0, 1), (513, 1))
    options = OPTIONS | {"causal": False}
    expected = stock()._run_sdpa_forward_decode(case.query, torch.empty_like(case.query), *case.inputs, **options)
    found = cpu_attention._decode(unused, None, case.query, torch.empty_like(case.query), *case.inputs, **options)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("changed", [{"causal": False}, {"sliding_window_size": 8}])
def test_other_kinds_of_attention_are_left_to_sglang(changed: dict[str, Any]) -> None:
    case = Case((4, 4))
    arguments = (case.query, torch.empty_like(case.query), *case.inputs, case.prefixes, case.new)
    assert cpu_attention._extend(lambda *given, **options: "stock", None, *arguments, **OPTIONS | changed) == "stock"  # type: ignore[arg-type,return-value]


def unused(*given: Any, **options: Any) -> torch.Tensor:
    raise AssertionError("left to SGLang")
