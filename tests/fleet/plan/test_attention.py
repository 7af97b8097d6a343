"""Which attention kernels take which heads on which card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psserve.fleet.plan.attention import attention_backend
from psserve.fleet.plan.nvidia import Gpu
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import CPU, GIB, gpus, plan, value_of

TURING, AMPERE, ADA, HOPPER, BLACKWELL, CONSUMER = (7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 0)


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    """A base with heads of 16."""
    return FakeZoo(tmp_path, FakeBase(tmp_path / "base"))


@pytest.mark.parametrize("capability", [TURING, AMPERE, ADA, HOPPER, BLACKWELL, CONSUMER, None])
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_common_heads_are_left_to_sglang_on_every_card(capability: Any, head_dim: int) -> None:
    assert attention_backend(head_dim, "bfloat16", capability) is None


@pytest.mark.parametrize("capability", [TURING, AMPERE, ADA, BLACKWELL, CONSUMER, None])
@pytest.mark.parametrize("head_dim", [16, 32, 80, 96, 112, 192, 512])
def test_other_heads_need_triton_but_on_hopper(capability: Any, head_dim: int) -> None:
    assert attention_backend(head_dim, "bfloat16", capability) == "triton"


@pytest.mark.parametrize(
    ("head_dim", "needed"), [(16, None), (32, None), (80, None), (96, None), (100, "triton"), (512, "triton")]
)
def test_hoppers_own_kernels_take_multiples_of_eight_up_to_256(head_dim: int, needed: str | None) -> None:
    assert attention_backend(head_dim, "bfloat16", HOPPER) == needed


def test_single_precision_needs_triton_everywhere() -> None:
    assert attention_backend(128, "float32", HOPPER) == "triton"


def on(capability: tuple[int, int]) -> Any:
    return replace(CPU, gpus=(Gpu(0, "card", 24 * GIB, 24 * GIB, capability),))


def test_servers_are_told_where_it_must_be(zoo: Any) -> None:
    for server in plan(zoo, on(ADA)).servers:
        assert value_of(server.command, "--attention-backend") == "triton"
    for server in plan(zoo, gpus(1)).servers:
        assert "--attention-backend" not in server.command


def test_the_users_own_choice_comes_last(zoo: Any) -> None:
    command = plan(zoo, on(ADA), args=("--attention-backend", "flashinfer")).servers[0].command
    assert command[-2:] == ("--attention-backend", "flashinfer")


@pytest.mark.parametrize(("capability", "dtype"), [(TURING, "float16"), (AMPERE, "bfloat16")])
def test_cards_without_bfloat16_compute_in_float16(zoo: Any, capability: tuple[int, int], dtype: str) -> None:
    assert value_of(plan(zoo, on(capability)).servers[0].command, "--dtype") == dtype


def test_a_server_on_unlike_cards_takes_what_both_can(zoo: Any) -> None:
    zoo.base.path.mkdir()
    (zoo.base.path / "config.json").write_text('{"num_attention_heads": 4}')
    machine = replace(CPU, gpus=(gpus(1).gpus[0], Gpu(1, "card", 80 * GIB, 80 * GIB, ADA)))
    document = {"prefill": {"tp": 2}, "decode": {"tp": 2}}
    assert value_of(plan(zoo, machine, document).servers[0].command, "--attention-backend") == "triton"
