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
from tests.fleet.planning import CPU, GIB, gpus, plan, value_of


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
        (gpus(2), {}, "it works on CPU so far, and this fleet runs on GPUs"),
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


@pytest.mark.parametrize(
    ("server", "platform", "reason"),
    [
        ({}, "darwin", "it needs Linux"),
        ({"options": SimpleNamespace(tp=2)}, "linux", r"decode.tp is 2, and it works with tp = 1"),
    ],
)
def test_a_server_that_cannot_read_in_place_is_refused(server: dict[str, Any], platform: str, reason: str) -> None:
    plain = {"role": "decode", "adapters": None, "table": "decode", "options": SimpleNamespace(tp=1)}
    settings: Any = SimpleNamespace(device="cpu")
    with pytest.raises(PlanError, match=f"^--transfer shared: {reason}"):
        check_one_pool(settings, [SimpleNamespace(**plain | server)], platform)  # type: ignore[list-item]


def test_a_fleet_of_several_hosts_is_refused() -> None:
    settings: Any = SimpleNamespace(device="cpu")
    with pytest.raises(PlanError, match=r"^--transfer shared: .* the fleet has 2 hosts; launch with --transfer nixl"):
        check_one_pool(settings, [], "linux", hosts=2)


def test_modules_that_share_servers_as_adapters_may_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pool, "installed_sglang", lambda: "0.5.23")
    server: Any = SimpleNamespace(role="decode", adapters=object(), table="adapters", options=SimpleNamespace(tp=1))
    settings: Any = SimpleNamespace(device="cpu")
    check_one_pool(settings, [server], "linux")


def test_a_release_that_it_was_not_made_for_is_refused(zoo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pool, "installed_sglang", lambda: "0.5.21")
    with pytest.raises(UnsupportedSglang, match=r"shared.*sglang 0\.5\.21"):
        plan(zoo, transfer="shared")


def test_a_dry_run_tells_of_one_pool_and_each_modules_part(zoo: Any) -> None:
    document = {"prefill": {"kv_tokens": 8_000}, "decode": {"kv_tokens": 1_024}, "module": {"code": {"kv_tokens": 512}}}
    note = split_note(plan(zoo, document=document, transfer="shared", context_length=4_000))
    assert (note or "").startswith("one KV pool: 8000 tokens hold every context once")
    assert "each has 512 to 1024 tokens of its own" in (note or "")
