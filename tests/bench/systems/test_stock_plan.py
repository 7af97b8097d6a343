"""Plain SGLang servers as they are planned: equal resources, nothing of psserve's on the rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from psserve.bench.compare.systems import running_system
from psserve.bench.systems.fleet import decode_servers, fleet_settings
from psserve.bench.systems.front import ModuleRoute
from psserve.bench.systems.stock import adapters_of
from psserve.bench.systems.stock_plan import STOCK_KINDS, StockPlanner
from psserve.bench.systems.system import SystemSpec
from psserve.errors import PlanError, UsageError
from psserve.fleet.plan.devices import Machine, detect
from psserve.zoo import serving_form
from psserve.zoo.synthetic.zoo import build_zoo
from tests.fleet.fake_zoo import FakeBase
from tests.fleet.planning import CPU, TWO_GPUS, value_of
from tests.zoo.checkpoints.test_lora import make_adapter

MODULES = ("math", "code")
KV_TOKENS = 64_000


def spec_of(tmp_path: Path, **changes: object) -> SystemSpec:
    adapters = {module: tmp_path / module for module in MODULES}
    given = {"zoo": tmp_path, "modules": MODULES, "kv_tokens": KV_TOKENS, "adapters": adapters, **changes}
    return SystemSpec(**given)  # type: ignore[arg-type]


def planned(
    name: str, spec: SystemSpec, machine: Machine | None = None
) -> tuple[StockPlanner, Mapping[str, ModuleRoute]]:
    kind = STOCK_KINDS[name]
    machine = machine or (TWO_GPUS if name == "lora" else CPU)
    base, folder = FakeBase(spec.zoo / "base"), spec.zoo
    pool = spec.kv_tokens // kind.share(len(spec.modules))
    planner = StockPlanner(base, spec, machine, pool_tokens=pool, folder=folder, tmp=folder)  # type: ignore[arg-type]
    return planner, kind.plan(base, spec, planner, lambda module: folder / module)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", STOCK_KINDS)
def test_every_system_has_the_same_kv_tokens(name: str, tmp_path: Path) -> None:
    planner, _ = planned(name, spec_of(tmp_path))
    assert sum(int(value_of(server.command, "--max-total-tokens")) for server in planner.servers) == KV_TOKENS


def test_psserve_has_as_many(tmp_path: Path) -> None:
    fleet = fleet_settings(spec_of(tmp_path, prefill_servers=2), decode_servers=2)
    assert 2 * fleet["prefill"]["kv_tokens"] + 2 * fleet["decode"]["kv_tokens"] == KV_TOKENS


def test_psserve_s_prefill_servers_have_what_a_fleet_gives_them(tmp_path: Path) -> None:
    fleet = fleet_settings(spec_of(tmp_path), decode_servers=2)
    assert [fleet[role]["kv_tokens"] for role in ("prefill", "decode")] == [38_400, 12_800]
    long = fleet_settings(spec_of(tmp_path, context_length=15_000), decode_servers=2)
    assert long["decode"]["kv_tokens"] > 15_000
    assert long["prefill"]["kv_tokens"] + 2 * long["decode"]["kv_tokens"] == KV_TOKENS


@pytest.mark.parametrize("name", STOCK_KINDS)
def test_no_hook_of_psserve_is_asked_for(name: str, tmp_path: Path) -> None:
    planner, _ = planned(name, spec_of(tmp_path))
    assert {server.env["PSSERVE_ROLE"] for server in planner.servers} == {"stock"}


@pytest.mark.parametrize("name", STOCK_KINDS)
def test_sglangs_own_arguments_reach_every_server(name: str, tmp_path: Path) -> None:
    planner, _ = planned(name, spec_of(tmp_path, args=("--attention-backend", "triton")))
    for server in planner.servers:
        last = len(server.command) - server.command[::-1].index("--attention-backend")  # the last one counts
        assert server.command[last] == "triton"


@pytest.mark.parametrize("name", STOCK_KINDS)
def test_every_module_has_a_route(name: str, tmp_path: Path) -> None:
    planner, routes = planned(name, spec_of(tmp_path))
    assert tuple(routes) == MODULES
    assert {route.url for route in routes.values()} <= {server.url for server in planner.servers}


def test_each_pair_of_servers_is_of_one_module(tmp_path: Path) -> None:
    planner, routes = planned("disaggregated", spec_of(tmp_path))
    prefill = {server.url: server for server in planner.servers if server.kind == "prefill"}
    for module, route in routes.items():
        paired = prefill[str(route.prefill_url)]
        assert value_of(paired.command, "--served-model-name") == module
        assert value_of(paired.command, "--disaggregation-bootstrap-port") == str(route.bootstrap_port)


def test_gpus_are_dealt_out_in_turn(tmp_path: Path) -> None:
    planner, _ = planned("disaggregated", spec_of(tmp_path, device="cuda"), TWO_GPUS)
    assert [value_of(server.command, "--base-gpu-id") for server in planner.servers] == ["0", "1", "0", "1"]


def test_lora_without_an_adapter_is_refused_with_the_modules(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no adapter for math, code"):
        planned("lora", spec_of(tmp_path, adapters={}))


@pytest.mark.parametrize(("machine", "backend"), [(CPU, ["torch_native"]), (TWO_GPUS, [])])
def test_lora_is_one_server_with_all_adapters(tmp_path: Path, machine: Machine, backend: list[str]) -> None:
    planner, routes = planned("lora", spec_of(tmp_path), machine)
    (server,) = planner.servers
    assert [value_of(server.command, flag) for flag in server.command if flag == "--lora-backend"] == backend
    assert server.command[-2:] == (f"math={tmp_path / 'math'}", f"code={tmp_path / 'code'}")
    assert {route.model for route in routes.values()} == {"qwen3-tiny:math", "qwen3-tiny:code"}


def test_adapters_of_a_zoo_need_no_folder_and_share_a_decode_server(tmp_path: Path) -> None:
    zoo = build_zoo(tmp_path / "zoo", modules=("code",))
    zoo.add("math", make_adapter(zoo.base.path, tmp_path / "a"), allow_naive=True)
    zoo.add("sums", make_adapter(zoo.base.path, tmp_path / "b"), allow_naive=True)
    assert adapters_of(zoo, ("code", "math")) == {"math": serving_form(zoo, zoo.module("math"))}
    counts = [
        decode_servers(spec_of(tmp_path, zoo=zoo.path, modules=modules))
        for modules in (("code",), ("math", "sums"), ("code", "math", "sums"))
    ]
    assert counts == [1, 1, 2]


def test_a_context_that_no_pool_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="KV pool"):
        planned("disaggregated", spec_of(tmp_path, kv_tokens=4_000, context_length=2_000))


def test_an_unknown_system_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shared, disaggregated"), running_system("x", spec_of(tmp_path), print):
        pass


@pytest.mark.parametrize(("name", "threads"), [("disaggregated", {"4"}), ("colocated", {"8"}), ("single", {"8"})])
def test_servers_of_a_kind_share_out_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, threads: set[str]
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    planner, _ = planned(name, spec_of(tmp_path), detect())
    assert {server.env["OMP_NUM_THREADS"] for server in planner.servers} == threads
    shared = fleet_settings(spec_of(tmp_path), decode_servers=2)
    assert [shared[role]["env"]["OMP_NUM_THREADS"] for role in ("prefill", "decode")] == ["8", "4"]
