from __future__ import annotations

import inspect

import pytest

from psserve import torchvision_ops
from psserve.engine.cuda.kernels import Shape, parse_architecture, sglang_kernels

torchvision_ops.declare_missing()  # SGLang imports it; beside torch for CPU it may be of another build


def test_architectures_are_read_as_nvidia_writes_them() -> None:
    assert parse_architecture("9.0") == (9, 0)
    assert parse_architecture("12.1") == (12, 1)


@pytest.mark.parametrize("text", ["90", "sm_90", "9.", "9.0a", ""])
def test_other_words_are_no_architecture(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no architecture such as 9\.0"):
        parse_architecture(text)


def test_the_installed_sglang_makes_these_kernels() -> None:
    kernels = sglang_kernels(Shape(head_size=128, kv_heads=8))
    assert {"activation", "rope", "clamp position", "KV cache"} <= kernels.keys()
    for build in kernels.values():
        inspect.signature(build.func).bind(*build.args, **build.keywords)


def test_a_row_of_kv_holds_all_heads_of_one_token() -> None:
    assert sglang_kernels(Shape(head_size=64, kv_heads=4))["KV cache"].args == (512, 512)
