"""How memory is shared out, on simulated machines."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.errors import PlanError
from psserve.fleet import FleetPlan
from psserve.fleet.plan.memory import usable_bytes
from psserve.fleet.plan.nvidia import Gpu
from psserve.fleet.plan.plan_module import plan_module
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import CPU, GIB, TOKEN_BYTES, gpus, plan, value_of

WEIGHTS = 2_000_000
"""Of the fake base as served: 4 MB of float32 in bfloat16."""


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    return FakeZoo(tmp_path, FakeBase(tmp_path / "base"))


def tokens(made: FleetPlan) -> dict[str, int]:
    return {server.name: server.memory.kv_tokens for server in made.servers}


def test_every_module_takes_the_bases_weights(zoo: Any) -> None:
    assert {server.memory.weight_bytes for server in plan(zoo, gpus(1)).servers} == {WEIGHTS}


def test_an_output_layer_of_a_modules_own_is_counted(zoo: Any) -> None:
    zoo = replace(zoo, sizes={"math": 5_000_000})
    for machine in (CPU, gpus(1)):
        weights = {server.name: server.memory.weight_bytes for server in plan(zoo, machine, dtype="float32").servers}
        assert weights == {"prefill-0": 4_000_000, "decode-code-0": 4_000_000, "decode-math-0": 5_000_000}
    (added,) = plan_module(zoo, plan(zoo, modules=["code"], dtype="float32"), "math").servers
    assert added.memory.weight_bytes == 5_000_000


def test_tokens_that_are_asked_for_are_given_and_the_rest_shared(zoo: Any) -> None:
    made = plan(zoo, gpus(1), {"prefill": {"kv_tokens": 65536}})
    overheads = sum(server.memory.overhead_bytes for server in made.servers)
    share = (72 * GIB - 3 * WEIGHTS - overheads - 65536 * TOKEN_BYTES) // 2 // TOKEN_BYTES
    assert tokens(made) == {"prefill-0": 65536, "decode-code-0": share // 64 * 64, "decode-math-0": share // 64 * 64}


@pytest.mark.parametrize("dtype", ["fp8_e4m3", "fp8_e5m2"])
def test_a_kv_cache_of_bytes_holds_twice_the_tokens(zoo: Any, dtype: str) -> None:
    halves, bytes_ = plan(zoo, gpus(2)), plan(zoo, gpus(2), {"kv_cache_dtype": dtype})
    for half, byte in zip(halves.servers, bytes_.servers, strict=True):
        assert byte.memory.kv_token_bytes * 2 == half.memory.kv_token_bytes == TOKEN_BYTES
        assert byte.memory.weight_bytes == half.memory.weight_bytes
        assert abs(byte.memory.kv_tokens - 2 * half.memory.kv_tokens) <= 64
        assert value_of(byte.command, "--kv-cache-dtype") == dtype
        assert "--kv-cache-dtype" not in half.command


def test_there_is_no_kv_cache_of_bytes_on_cpu(zoo: Any) -> None:
    with pytest.raises(PlanError, match="kv-cache-dtype fp8_e4m3: fp8 needs GPUs"):
        plan(zoo, kv_cache_dtype="fp8_e4m3")


def test_a_memory_fraction_is_of_the_whole_gpu_for_all_a_server_holds(zoo: Any) -> None:
    memory = plan(zoo, gpus(1), {"prefill": {"memory_fraction": 0.5}}).servers[0].memory
    assert 40 * GIB - 64 * TOKEN_BYTES < memory.total_bytes <= 40 * GIB


def test_a_split_server_puts_a_part_on_each_gpu(zoo: Any) -> None:
    (zoo.base.path).mkdir()
    (zoo.base.path / "config.json").write_text('{"num_attention_heads": 4}')
    made = plan(zoo, gpus(4), {"prefill": {"tp": 2}, "decode": {"tp": 2}}, modules=["math"])
    memory = made.servers[1].memory
    alone = plan(zoo, gpus(2), modules=["math"]).servers[1].memory
    assert memory.overhead_bytes == 2 * (alone.overhead_bytes + 2 * 128 * 1024**2)
    assert 2 * 72 * GIB - 2 * 64 * TOKEN_BYTES < memory.total_bytes <= 2 * 72 * GIB


def test_where_servers_share_a_gpu_the_prefill_pool_gets_twice_what_is_left(zoo: Any) -> None:
    made = tokens(plan(zoo, gpus(1)))
    longest = 4096 + 64 + 512
    assert made["decode-code-0"] == made["decode-math-0"]
    assert abs(made["prefill-0"] - longest - 2 * (made["decode-code-0"] - longest)) < 3 * 64


def with_pools_of(zoo: Any, kib: int) -> FleetPlan:
    """Three servers on a GPU that has so much left for their KV cache."""
    beside = sum(server.memory.total_bytes - server.memory.kv_bytes for server in plan(zoo, gpus(1, 12)).servers)
    machine = replace(CPU, gpus=(Gpu(0, "small", 0, beside + kib * 1024),))
    return plan(zoo, machine)


def test_a_small_gpu_is_shared_evenly_up_to_the_longest_request(zoo: Any) -> None:
    made = with_pools_of(zoo, 6_000)
    assert tokens(made) == {"prefill-0": 3968, "decode-code-0": 3968, "decode-math-0": 3968}
    assert made.basis.settings.context_length == 3968 - 496 - 64


@pytest.mark.parametrize("kib", range(2_000, 10_000, 500))
def test_the_larger_prefill_pool_never_shortens_the_context(zoo: Any, kib: int) -> None:
    made = with_pools_of(zoo, kib)
    even = kib * 1024 // 3 // TOKEN_BYTES // 64 * 64
    assert made.basis.settings.context_length == min(4096, even - min(512, even // 8) - 64)


def test_the_flag_wins_over_all_that_the_file_says_of_memory(zoo: Any) -> None:
    document = {"prefill": {"memory_fraction": 0.5}, "module": {"math": {"kv_tokens": 5000}}}
    assert set(tokens(plan(zoo, gpus(2), document, kv_tokens=8192)).values()) == {8192}


def test_a_modules_own_size_stands_against_the_other_kind_in_decode(zoo: Any) -> None:
    document = {"decode": {"memory_fraction": 0.25}, "module": {"math": {"kv_tokens": 4096}}}
    assert tokens(plan(zoo, gpus(2), document))["decode-math-0"] == 4096


def test_spare_keeps_room_for_a_server_that_is_not_started(zoo: Any) -> None:
    made = plan(zoo, gpus(2), {"decode": {"spare": 2}})
    assert [server.name for server in made.servers] == ["prefill-0", "decode-code-0", "decode-math-0"]
    used = sum(server.memory.total_bytes for server in made.servers if server.gpus == (1,))
    assert abs(used - 36 * GIB) < GIB


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"prefill": {"kv_tokens": 400_000_000}}, r"prefill-0 1\.9 MiB weights \+ 190\.7 GiB KV \(400000000 tokens\)"),
        (
            {"decode": {"memory_fraction": 0.6}},
            r"GPU 0 \(H100\) has 72\.0 GiB to plan with \(80\.0 GiB free, less a ten",
        ),
        (
            {"decode": {"memory_fraction": 0.01}},
            r"decode.memory_fraction = 0\.01 of 80\.0 GiB is 0\.8 GiB, and decode-",
        ),
    ],
)
def test_a_gpu_used_over_its_memory_is_refused_with_the_sum(zoo: Any, document: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(zoo, gpus(1), document)


def test_a_fraction_means_nothing_on_cpu(zoo: Any) -> None:
    with pytest.raises(PlanError, match=r"prefill\.memory_fraction is a part of a GPU's memory: on CPU give kv_tokens"):
        plan(zoo, document={"prefill": {"memory_fraction": 0.5}})


SIZES = st.one_of(
    st.just({}),
    st.builds(lambda n: {"kv_tokens": n}, st.integers(1024, 10**8)),
    st.builds(lambda f: {"memory_fraction": f}, st.floats(0.01, 1.0)),
)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 4),
    gib=st.integers(4, 141),
    prefill=SIZES,
    decode=SIZES,
    math=SIZES,
    replicas=st.integers(1, 3),
    spare=st.integers(0, 2),
)
def test_no_plan_uses_a_gpu_over_its_memory(
    count: int, gib: int, prefill: Any, decode: Any, math: Any, replicas: int, spare: int
) -> None:
    document = {
        "prefill": prefill | {"replicas": replicas},
        "decode": decode | {"spare": spare},
        "module": {"math": math},
    }
    machine = gpus(count, gib)
    folder = Path(tempfile.gettempdir())
    zoo: Any = FakeZoo(folder, FakeBase(folder / "base"))
    try:
        made = plan(zoo, machine, document)
    except PlanError:
        return
    for gpu in machine.gpus:
        on_it = [server.memory.total_bytes for server in made.servers if gpu.index in server.gpus]
        assert sum(on_it) <= usable_bytes(gpu)
