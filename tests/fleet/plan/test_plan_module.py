"""Planning one more module into a fleet that runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import PlanError, UnknownModule
from psserve.fleet import FleetPlan
from psserve.fleet.plan.memory import usable_bytes
from psserve.fleet.plan.plan_module import plan_module
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import CPU, GIB, gpus, plan, value_of


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    return FakeZoo(tmp_path, FakeBase(tmp_path / "base"))


def ports(made: FleetPlan) -> set[int | None]:
    return {made.router.port} | {port for server in made.servers for port in (server.port, server.bootstrap_port)}


def test_it_is_planned_as_at_launch_but_on_other_ports(zoo: Any) -> None:
    document = {"decode": {"kv_tokens": 8192}}
    whole = plan(zoo, document=document)
    running = plan(zoo, document=document, modules=["code"])
    added = plan_module(zoo, running, "maths")
    (server,) = added.servers
    assert (added.module, server.name, server.module) == ("math", "decode-math-0", "math")
    assert server.memory == whole.servers[2].memory
    assert server.port not in ports(running)
    assert len(server.command) == len(whole.servers[2].command)
    assert value_of(server.command, "--model-path") == str(added.checkpoint.path)


def test_its_checkpoint_is_of_the_version_that_was_planned(zoo: Any) -> None:
    added = plan_module(zoo, plan(zoo, modules=["code"]), "maths")
    assert added.checkpoint.module == "math@1"
    assert added.entry.zoo_version == 1


def test_without_a_size_it_gets_the_fleets_smallest_pool(zoo: Any) -> None:
    running = plan(zoo, modules=["code"])
    (server,) = plan_module(zoo, running, "maths").servers
    assert server.memory.kv_tokens == running.servers[1].memory.kv_tokens < running.servers[0].memory.kv_tokens


def test_another_version_has_other_names_and_places(zoo: Any) -> None:
    document = {"module": {"math": {"replicas": 2}}}
    running = plan(zoo, document=document)
    changed = plan_module(zoo, running, "math", version=2)
    assert [server.name for server in changed.servers] == ["decode-math-0-v2", "decode-math-1-v2"]
    for name in ("log", "rendezvous", "port"):
        taken = {getattr(server, name) for server in running.servers}
        assert taken.isdisjoint(getattr(server, name) for server in changed.servers)
    assert changed.checkpoint.path not in {checkpoint.path for checkpoint in running.checkpoints}


def test_the_router_accepts_its_entries(zoo: Any) -> None:
    added = plan_module(zoo, plan(zoo), "math", version=2)
    assert added.entry.version == 2
    assert [worker.version for worker in added.workers] == [2]


def test_given_ports_are_for_the_launch(zoo: Any) -> None:
    running = plan(zoo, modules=["code"])
    options = running.basis.options.model_validate({"module": {"math": {"ports": (4242,)}}}, strict=False)
    running = replace(running, basis=replace(running.basis, options=options))
    assert plan_module(zoo, running, "math").servers[0].port != 4242


def test_the_pool_is_the_fleets_smallest(zoo: Any) -> None:
    running = plan(
        zoo, gpus(2), {"decode": {"kv_tokens": 20_032}, "module": {"code": {"kv_tokens": 8192}}}, modules=["code"]
    )
    running_by_share = plan(zoo, gpus(2), {"module": {"code": {"kv_tokens": 8192}}}, modules=["code"])
    assert plan_module(zoo, running, "math").servers[0].memory.kv_tokens == 20_032
    assert plan_module(zoo, running_by_share, "math").servers[0].memory.kv_tokens == 8192


def test_it_keeps_away_from_prefill_servers(zoo: Any) -> None:
    running = plan(zoo, gpus(3), {"decode": {"spare": 1}, "prefill": {"gpus": [1]}}, modules=["code"])
    assert plan_module(zoo, running, "math").servers[0].gpus == (2,)


def test_a_full_gpu_is_refused_with_the_sum_and_the_way_out(zoo: Any) -> None:
    with pytest.raises(
        PlanError, match=r"running servers 72\.0 GiB; decode-math-0 .*decode\.spare in fleet\.toml keeps"
    ):
        plan_module(zoo, plan(zoo, gpus(1), modules=["code"]), "math")


def test_spare_room_is_enough_for_a_replacement(zoo: Any) -> None:
    machine = gpus(1)
    running = plan(zoo, machine, {"decode": {"spare": 1}})
    changed = plan_module(zoo, running, "math", version=2)
    total = sum(server.memory.total_bytes for server in (*running.servers, *changed.servers))
    assert total <= usable_bytes(machine.gpus[0])


def test_main_memory_counts_running_servers(zoo: Any) -> None:
    machine = replace(CPU, total_bytes=GIB)
    running = plan(zoo, machine, kv_tokens=150_000, modules=["code"])
    with pytest.raises(PlanError, match=r"running servers .* GiB; decode-math-0"):
        plan_module(zoo, replace(running, servers=running.servers * 4), "math")


def test_a_pool_too_small_for_the_fleets_context_is_refused(zoo: Any) -> None:
    running = plan(zoo, document={"module": {"math": {"kv_tokens": 1024}}}, modules=["code"])
    with pytest.raises(PlanError, match=r"1024 tokens holds at most 880 .* the context is 4096"):
        plan_module(zoo, running, "math")


def test_an_unknown_module_is_refused(zoo: Any) -> None:
    with pytest.raises(UnknownModule):
        plan_module(zoo, plan(zoo), "poems")
