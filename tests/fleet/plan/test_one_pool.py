"""Plans of fleets whose decode servers read prompts in the prefill server's pool."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.contracts.one_pool import LARGEST_POOL
from psserve.errors import PlanError, UnsupportedSglang
from psserve.fleet.plan import one_pool
from psserve.fleet.plan.memory import SMALLEST_POOL
from psserve.fleet.plan.one_pool import check_one_pool, pools_of_one
from psserve.fleet.plan.plan_module import plan_module
from psserve.fleet.plan.show import split_note
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import CPU, GIB, TOKEN_BYTES, gpus, plan, value_of


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    return FakeZoo(tmp_path, FakeBase(tmp_path / "base"))


@pytest.fixture(autouse=True)
def sglang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pool, "installed_sglang", lambda: "0.5.18")


def test_servers_are_told_and_nixl_is_only_a_name_for_sglang(zoo: Any) -> None:
    for server in plan(zoo, transfer="shared").servers:
        assert server.env["PSSERVE_ONE_POOL"] == "1"
        assert value_of(server.command, "--disaggregation-transfer-backend") == "nixl"
    for server in plan(zoo, transfer="nixl").servers:
        assert "PSSERVE_ONE_POOL" not in server.env


def test_the_router_charges_prompts_to_prefill_servers(zoo: Any) -> None:
    assert plan(zoo, transfer="shared").router.config.one_pool
    assert not plan(zoo, transfer="nixl").router.config.one_pool


def test_a_context_need_not_fit_into_a_decode_servers_pool(zoo: Any) -> None:
    document = {"prefill": {"kv_tokens": 8_000}, "decode": {"kv_tokens": 1_024}}
    made = plan(zoo, document=document, transfer="shared", context_length=4_000)
    assert made.router.config.kv_pool_tokens == 8_000
    assert made.basis.settings.context_length == 4_000
    with pytest.raises(PlanError, match="a KV pool of 1024 tokens holds at most"):
        plan(zoo, document=document, context_length=4_000)


def test_a_module_that_comes_later_gets_a_pool_like_the_others(zoo: Any) -> None:
    document = {"prefill": {"kv_tokens": 8_000}, "decode": {"kv_tokens": 1_024}}
    made = plan(zoo, document=document, transfer="shared", context_length=4_000, modules=("math",))
    (server,) = plan_module(zoo, made, "code").servers
    assert server.memory.kv_tokens == 1_024
    assert server.env["PSSERVE_ONE_POOL"] == "1"


def test_most_memory_is_the_prefill_servers(zoo: Any) -> None:
    made = plan(zoo, transfer="shared")
    prefill, *decode = (server.memory.kv_tokens for server in made.servers)
    assert prefill > 4 * sum(decode)


@given(
    left=st.integers(10, 200_000), prefill=st.integers(1, 4), decode=st.integers(1, 8), longest=st.integers(1, 40_000)
)
def test_pools_take_what_there_is_and_no_more(left: int, prefill: int, decode: int, longest: int) -> None:
    of_prefill, of_decode = pools_of_one(left, prefill, decode, longest)
    used = of_prefill * prefill + of_decode * decode
    assert left - prefill - decode < used <= left
    assert of_decode >= min(SMALLEST_POOL, left // (prefill + decode))
    assert of_prefill >= min(longest, of_decode)


def test_of_40960_tokens_four_modules_leave_sessions_of_1500_24_places() -> None:
    of_prefill, of_decode = pools_of_one(40_960, 1, 4, longest=4_096)
    assert (of_prefill // 1_500, of_decode) == (24, 1_024)


@pytest.mark.parametrize(
    ("machine", "asked", "reason"),
    [
        (
            gpus(2),
            {"kv_tokens": 65_536},
            "decode servers read memory of their own GPU, and .* are on GPUs 0, 1: name one .*",
        ),
        (
            gpus(1),
            {"prefill__kv_tokens": 40_000_000, "decode__kv_tokens": 4_096},
            r"decode-code-0 would need 32768 \+ 2 x 40000064 rows for .* attention counts 67108864 at most: .*",
        ),
        (CPU, {"prefill__replicas": 9}, "there are 9 prefill servers, and it works with 8 at most"),
        (
            replace(CPU, total_bytes=900 * GIB),
            {"prefill__kv_tokens": LARGEST_POOL},
            f"prefill-0 has {LARGEST_POOL} KV tokens, and it works with {LARGEST_POOL - 1} at most",
        ),
    ],
)
def test_where_it_cannot_work_it_is_refused_by_name(zoo: Any, machine: Any, asked: dict[str, int], reason: str) -> None:
    with pytest.raises(PlanError, match=f"^--transfer shared: {reason}; launch with --transfer nixl"):
        plan(zoo, machine, transfer="shared", **asked)


def test_it_needs_linux() -> None:
    with pytest.raises(PlanError, match=r"^--transfer shared: it needs Linux"):
        check_one_pool([], "darwin")


@pytest.mark.parametrize("machine", [CPU, gpus(2)])
def test_servers_may_be_split_alike_and_no_other_way(zoo: Any, machine: Any) -> None:
    zoo.base.path.mkdir(exist_ok=True)
    (zoo.base.path / "config.json").write_text('{"num_attention_heads": 4}')
    sizes = {"kv_tokens": 65_536, "transfer": "shared"}
    made = plan(zoo, machine, prefill__tp=2, decode__tp=2, **sizes)
    assert {server.gpus for server in made.servers} in ({()}, {(0, 1)})
    with pytest.raises(PlanError, match=r"decode\.tp = 1, and prefill servers have tp = 2"):
        plan(zoo, machine, prefill__tp=2, **sizes)


def test_a_fleet_of_several_hosts_is_refused() -> None:
    with pytest.raises(PlanError, match=r"^--transfer shared: .* the fleet has 2 hosts; launch with --transfer nixl"):
        check_one_pool([], "linux", hosts=2)


def test_modules_that_share_servers_as_adapters_may_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pool, "installed_sglang", lambda: "0.5.23")
    server: Any = SimpleNamespace(role="decode", adapters=object(), table="adapters", options=SimpleNamespace(tp=1))
    check_one_pool([server], "linux")


def test_a_release_that_it_was_not_made_for_is_refused(zoo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pool, "installed_sglang", lambda: "0.5.21")
    with pytest.raises(UnsupportedSglang, match=r"shared.*sglang 0\.5\.21"):
        plan(zoo, transfer="shared")


def test_a_dry_run_tells_of_one_pool_and_each_modules_part(zoo: Any) -> None:
    document = {"prefill": {"kv_tokens": 8_000}, "decode": {"kv_tokens": 1_024}, "module": {"code": {"kv_tokens": 512}}}
    note = split_note(plan(zoo, document=document, transfer="shared", context_length=4_000))
    assert (note or "").startswith("one KV pool: 8000 tokens hold every context once")
    assert "each has 512 to 1024 tokens of its own" in (note or "")


# On GPUs.


def test_on_one_gpu_decode_servers_have_room_for_the_prefill_servers_pool(zoo: Any) -> None:
    made = plan(zoo, gpus(1), transfer="shared", kv_tokens=65_536, prefill__kv_tokens=500_000)
    tokens = made.servers[0].memory.kv_tokens
    assert {server.env["PSSERVE_LENT_ROWS"] for server in made.servers} == {str(tokens + 64)}
    (later,) = plan_module(
        zoo, plan(zoo, gpus(1), transfer="shared", kv_tokens=65_536, modules=("math",)), "code"
    ).servers
    assert later.env["PSSERVE_LENT_ROWS"] == str(65_536 + 64)
    assert "PSSERVE_LENT_ROWS" not in plan(zoo, transfer="shared").servers[0].env


def test_a_gpus_memory_is_counted_as_it_is_mapped(zoo: Any) -> None:
    asked = {"prefill__kv_tokens": 500_000, "decode__kv_tokens": 40_000}
    shared, nixl = (plan(zoo, gpus(1), transfer=transfer, **asked).servers for transfer in ("shared", "nixl"))
    for ours, theirs in zip(shared, nixl, strict=True):
        mapped = ours.memory.kv_bytes + ours.memory.overhead_bytes - theirs.memory.overhead_bytes
        assert mapped % (8 * 2 * 1024**2) == 0, "of 4 layers' keys and values"
        assert 0 < mapped - ours.memory.kv_bytes < 8 * 2 * 1024**2 + 64 * TOKEN_BYTES


def test_on_a_gpu_most_memory_is_the_prefill_servers_too(tmp_path: Path) -> None:
    zoo = FakeZoo(tmp_path, replace(FakeBase(tmp_path / "base"), num_kv_heads=8, head_dim=128))
    made = plan(zoo, gpus(1, gib=12), transfer="shared")
    prefill, *decode = (server.memory.kv_tokens for server in made.servers)
    assert prefill > 8 * sum(decode)
    assert min(decode) >= SMALLEST_POOL
    assert sum(server.memory.total_bytes for server in made.servers) < 0.9 * 12 * GIB


def test_auto_stays_nixl_on_gpus(zoo: Any) -> None:
    assert plan(zoo, gpus(1)).basis.settings.transfer == "nixl"


def test_a_dry_run_says_that_it_has_not_run_on_a_gpu(zoo: Any) -> None:
    said = "this has not run on a GPU yet"
    assert said in (split_note(plan(zoo, gpus(1), transfer="shared", kv_tokens=65_536)) or "")
    assert said not in (split_note(plan(zoo, transfer="shared")) or "")
