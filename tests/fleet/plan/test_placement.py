"""Which GPUs servers get, on simulated machines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import PlanError
from psserve.fleet import FleetPlan
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.nvidia import Gpu
from psserve.fleet.plan.placement import neighbours
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import CPU, GIB, gpus, plan, value_of


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    """A base of 4 attention and 2 key-value heads, modules a, b and c."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"num_attention_heads": 4}))
    return FakeZoo(tmp_path, FakeBase(tmp_path / "base"), {"a": (), "b": (), "c": ("sea",)})


def devices(made: FleetPlan) -> dict[str, str]:
    return {server.name: server.device for server in made.servers}


@pytest.mark.parametrize(
    ("count", "document", "expected"),
    [
        (1, {}, "0 0 0 0"),
        (2, {}, "0 1 1 1"),
        (4, {}, "0 1 2 3"),
        (6, {}, "0 1 2 3 4 5"),
        (6, {"prefill": {"replicas": 1}}, "0 1 2 3"),
        (6, {"decode": {"spare": 1}}, "0 1 2 3 4"),
        (4, {"prefill": {"replicas": 2}}, "0 1 2 3 2"),
        (2, {"prefill": {"replicas": 2}}, "0 0 1 1 1"),
        (4, {"prefill": {"gpus": [3]}}, "3 0 1 2"),
        (3, {"decode": {"gpus": [0]}}, "1 2 0 0 0"),
        (4, {"module": {"b": {"gpus": [1]}}}, "0 2 1 3"),
        (4, {"module": {"sea": {"gpus": [0, 2], "replicas": 3}}}, "1 3 2 0 2 0"),
        (8, {"decode": {"tp": 2}, "prefill": {"tp": 2}}, "0,1 2,3 4,5 6,7"),
        (8, {"prefill": {"tp": 2}, "decode": {"tp": 2}, "module": {"a": {"replicas": 2}}}, "0,1 2,3 4,5 6,7 2,3"),
        (4, {"prefill": {"tp": 2}, "decode": {"tp": 2}}, "0,1 2,3 2,3 2,3"),
        (2, {"prefill": {"tp": 2}, "decode": {"tp": 2}}, "0,1 0,1 0,1 0,1"),
    ],
)
def test_servers_are_placed(zoo: Any, count: int, document: dict[str, Any], expected: str) -> None:
    made = plan(zoo, gpus(count), document)
    assert [server.device.removeprefix("cuda:") for server in made.servers] == expected.split()


def test_replicas_of_a_module_are_servers_of_their_own(zoo: Any) -> None:
    made = plan(zoo, gpus(4), {"module": {"b": {"replicas": 2}}}, modules=["a", "b"])
    assert devices(made) == {
        "prefill-0": "cuda:0",
        "decode-a-0": "cuda:1",
        "decode-b-0": "cuda:2",
        "decode-b-1": "cuda:3",
    }
    assert made.modules == ("a", "b")
    assert [checkpoint.module for checkpoint in made.checkpoints] == ["a", "b"]


def test_a_decode_server_goes_where_most_memory_is_left(zoo: Any) -> None:
    sizes = (80, 40, 80)
    machine = replace(CPU, gpus=tuple(Gpu(i, "X", 80 * GIB, free * GIB) for i, free in enumerate(sizes)))
    assert devices(plan(zoo, machine, prefill__replicas=1, modules=["a"])) == {
        "prefill-0": "cuda:0",
        "decode-a-0": "cuda:2",
    }


def test_a_server_split_over_gpus_is_one_command(zoo: Any) -> None:
    made = plan(zoo, gpus(4), {"prefill": {"tp": 2}, "decode": {"tp": 2, "gpus": [2, 3]}}, modules=["a"])
    command = made.servers[1].command
    assert (value_of(command, "--base-gpu-id"), value_of(command, "--tp-size")) == ("2", "2")
    assert "--tp-size" not in plan(zoo, gpus(4), modules=["a"]).servers[0].command


def test_a_server_split_on_cpu_gives_each_part_a_core(zoo: Any) -> None:
    made = plan(zoo, CPU, {"prefill": {"tp": 2}, "decode": {"tp": 2}}, modules=["a"])
    for server in made.servers:
        assert value_of(server.command, "--tp-size") == "2"
        assert server.env["SGLANG_CPU_OMP_THREADS_BIND"] == "0|1"
    assert "SGLANG_CPU_OMP_THREADS_BIND" not in plan(zoo, CPU).servers[0].env


@pytest.mark.parametrize(
    ("machine", "document", "message"),
    [
        (gpus(2), {"prefill": {"gpus": [2]}}, r"prefill.gpus = \[2\]: there is no GPU 2, the visible ones are 0, 1"),
        (gpus(2), {"module": {"sea": {"gpus": [7]}}}, r"module.sea.gpus = \[7\]: there is no GPU 7"),
        (CPU, {"prefill": {"gpus": [0]}}, r"prefill.gpus needs GPUs, and this fleet runs on CPU: remove it"),
        (CPU, {"decode": {"tp": 4}}, r"decode.tp = 4: the base qwen3-tiny has 2 key-value heads, and 2 / 4 is not"),
        (
            gpus(1),
            {"prefill": {"tp": 2}, "decode": {"tp": 2}},
            r"prefill.tp = 2: prefill-0 would need 2 neighbouring GPUs, and there are 0",
        ),
        (gpus(8), {"decode": {"tp": 4}}, r"decode.tp = 4: the base qwen3-tiny has 2 key-value heads, and 2 / 4 is not"),
        (
            gpus(8),
            {"decode": {"tp": 2}},
            r"decode.tp = 2, and prefill servers have tp = 1: their KV caches would be cut",
        ),
        (gpus(8), {"prefill": {"tp": 2}}, r"decode.tp = 1, and prefill servers have tp = 2"),
        (
            gpus(8),
            {"prefill": {"tp": 2}, "decode": {"tp": 2}, "module": {"sea": {"tp": 1}}},
            r"module.sea.tp = 1, and prefill servers have tp = 2",
        ),
        (gpus(8), {"prefill": {"tp": 3}}, r"prefill.tp = 3: .* has 2 key-value heads"),
    ],
)
def test_impossible_devices_are_refused(zoo: Any, machine: Machine, document: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(zoo, machine, document)


def test_attention_heads_must_be_shared_out_too(zoo: Any) -> None:
    (zoo.base.path / "config.json").write_text(json.dumps({"num_attention_heads": 5}))
    with pytest.raises(PlanError, match="has 5 attention heads, and 5 / 2 is not whole"):
        plan(zoo, gpus(2), {"decode": {"tp": 2}})


def test_neighbours_never_overlap() -> None:
    assert neighbours([0, 1, 2, 4, 5], 2) == [(0, 1), (4, 5)]
    assert neighbours([0, 2], 2) == []
