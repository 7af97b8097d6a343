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
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.fitting import pools
from psserve.fleet.plan.memory import usable_bytes
from psserve.fleet.plan.nvidia import Gpu
from psserve.fleet.plan.plan_module import plan_module
from psserve.fleet.plan.settings import pool_for
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


@pytest.mark.parametrize("machine", [gpus(1), CPU])
@pytest.mark.parametrize("modules", [["code"], ["code", "math"]])
def test_of_a_device_that_all_share_the_prefill_servers_get_three_fifths(
    zoo: Any, machine: Machine, modules: list[str]
) -> None:
    made = tokens(plan(zoo, machine, {"prefill": {"replicas": 2}}, modules=modules))
    prefill, decode = [[size for name, size in made.items() if name.startswith(role)] for role in ("prefill", "decode")]
    assert len(set(prefill)) == len(set(decode)) == 1
    assert sum(prefill) / sum(made.values()) == pytest.approx(0.6, abs=0.003)


def test_four_modules_share_what_keeps_16_sessions_where_equal_pools_keep_5() -> None:
    """Of 1,500 tokens each."""
    shared = pools(40_960, prefill=1, decode=4, longest=pool_for(2_048, 16))
    assert shared == {"prefill": 24_576, "decode": 4_096}
    assert (shared["prefill"] // 1_500, 40_960 // 5 // 1_500) == (16, 5)


@given(left=st.integers(0, 10**6), prefill=st.integers(0, 4), decode=st.integers(0, 9), longest=st.integers(0, 10**5))
def test_no_pool_is_smaller_than_the_longest_request_or_than_equal_ones(
    left: int, prefill: int, decode: int, longest: int
) -> None:
    made = pools(left, prefill, decode, longest)
    used = prefill * made["prefill"] + decode * made["decode"]
    assert 0 <= left - used < max(1, prefill + decode) or not prefill + decode
    there = [made[role] for role, count in (("prefill", prefill), ("decode", decode)) if count]
    assert all(size >= min(longest, left // (prefill + decode)) for size in there)


def test_pools_on_cpu_have_16384_tokens_on_the_average(zoo: Any) -> None:
    made = tokens(plan(zoo, context_length=2048))
    assert made == {"prefill-0": 29_488, "decode-code-0": 9_824, "decode-math-0": 9_824}
    assert set(tokens(plan(zoo, document={"decode": {"kv_tokens": 4096}})).values()) == {16_384, 4_096}
    zoo = replace(zoo, base=replace(zoo.base, context_length=32_768))
    assert set(tokens(plan(zoo)).values()) == {16_384}


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
