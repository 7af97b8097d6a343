"""Plans of modules that are adapters, which share decode servers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import PlanError
from psserve.fleet import FleetPlan
from psserve.fleet.plan.plan_module import plan_module
from psserve.fleet.plan.show import adapters_note, named, plan_json
from psserve.zoo.disk.manifest import AdapterShape
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import CPU, gpus, plan, value_of

SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
QKV = ("k_proj", "q_proj", "v_proj")
QKV_WIDTH = (64 + 4 * 16) + 2 * (64 + 2 * 16)
"""Inputs and outputs of q, k and v of one layer of the fake base."""


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    """Three adapters, and math, which is none."""
    base = FakeBase(tmp_path / "base")
    base.path.mkdir()
    (base.path / "config.json").write_text(json.dumps(SHAPE))
    return FakeZoo(
        tmp_path,
        base,
        {"code": ("coding",), "math": (), "sums": (), "tools": ()},
        adapters={
            "code": AdapterShape(rank=8, targets=QKV, bytes=5_000),
            "sums": AdapterShape(rank=4, targets=QKV, bytes=3_000),
            "tools": AdapterShape(rank=2, targets=("down_proj",), bytes=1_000),
        },
    )


def servers(made: FleetPlan) -> list[tuple[str, str | None]]:
    return [(server.name, server.module) for server in made.servers]


def test_adapters_share_a_server_and_others_have_their_own(zoo: Any) -> None:
    made = plan(zoo)
    assert servers(made) == [("prefill-0", None), ("decode-math-0", "math"), ("decode-adapters-0", "adapters")]
    assert [(one.module, one.name) for one in made.adapters] == [
        ("code", "code@1"),
        ("sums", "sums@1"),
        ("tools", "tools@1"),
    ]
    assert [one.module for one in made.checkpoints] == ["math"]
    assert made.modules == ("code", "math", "sums", "tools")


def test_the_router_knows_the_group_of_each_module(zoo: Any) -> None:
    config = plan(zoo).router.config
    known = {module.name: (module.group, module.adapter) for module in config.modules}
    assert known == {
        "code": ("adapters", "code@1"),
        "math": (None, None),
        "sums": ("adapters", "sums@1"),
        "tools": ("adapters", "tools@1"),
    }
    assert [worker.module for worker in config.workers] == [None, "math", "adapters"]


@pytest.mark.parametrize("count", [1, 20])
def test_however_many_adapters_there_are_two_servers_serve_them(zoo: Any, count: int) -> None:
    many = {f"adapter-{number}": () for number in range(count)}
    shape = AdapterShape(rank=8, targets=QKV, bytes=5_000)
    made = plan(replace(zoo, names=many, adapters=dict.fromkeys(many, shape)))
    assert servers(made) == [("prefill-0", None), ("decode-adapters-0", "adapters")]


def test_their_server_runs_the_base_with_room_for_the_largest(zoo: Any) -> None:
    server = plan(zoo).servers[-1]
    assert value_of(server.command, "--model-path") == str(zoo.base.path)
    assert value_of(server.command, "--max-lora-rank") == "8"
    targets = server.command.index("--lora-target-modules") + 1
    assert server.command[targets : targets + 5] == ("down_proj", *QKV, "--max-loras-per-batch")
    assert value_of(server.command, "--max-loras-per-batch") == "9"
    assert value_of(server.command, "--max-loaded-loras") == "32"
    assert value_of(server.command, "--lora-drain-wait-threshold") == "1.0"
    assert value_of(server.command, "--lora-backend") == "torch_native"
    assert server.env["PSSERVE_ADAPTERS"] == str(zoo.path / ".run" / "adapters")


def test_servers_of_other_modules_know_nothing_of_adapters(zoo: Any) -> None:
    for server in plan(zoo).servers[:-1]:
        assert "--enable-lora" not in server.command
        assert "PSSERVE_ADAPTERS" not in server.env


def test_memory_is_counted_by_slots_and_by_what_is_loaded(zoo: Any) -> None:
    made = plan(zoo, document={"adapters": {"max_loras_per_batch": 4, "max_loaded": 10}}, dtype="bfloat16")
    prefill, *_, server = made.servers
    slot = 8 * (QKV_WIDTH + 64 + 128) * 4 * 2  # rank, widths, layers, bytes of a number
    assert server.memory.weight_bytes - prefill.memory.weight_bytes == 5 * slot
    assert server.memory.adapter_bytes == 10 * 5_000
    assert plan_json(made)["servers"][2]["adapter_bytes"] == 10 * 5_000


def test_a_plan_says_who_shares_what(zoo: Any) -> None:
    assert adapters_note(plan(zoo)) == (
        "code, sums, tools share decode-adapters-0: adapters of rank 8 at most, 8 in a batch (0.6 MiB),"
        " 32 in main memory (0.2 MiB)"
    )
    assert adapters_note(plan(zoo, modules=["math"])) is None


def test_many_modules_are_not_all_named() -> None:
    assert named([f"m{number}" for number in range(1_000)]).endswith("m18, m19 and 980 more")


def test_adapters_in_main_memory_can_be_too_many(zoo: Any) -> None:
    large = replace(zoo, adapters=dict.fromkeys(zoo.adapters, AdapterShape(rank=8, targets=QKV, bytes=10**9)))
    with pytest.raises(PlanError, match=r"decode-adapters-0 .* adapters; serve fewer"):
        plan(large, CPU)
    plan(large, CPU, {"adapters": {"max_loras_per_batch": 1}})


def test_adapters_in_main_memory_can_be_too_many_on_gpus_too(zoo: Any) -> None:
    large = replace(zoo, adapters=dict.fromkeys(zoo.adapters, AdapterShape(rank=8, targets=QKV, bytes=10**9)))
    with pytest.raises(PlanError, match=r"24\.0 GiB of main memory, .* 29\.8 GiB: lower max_loaded"):
        plan(large, gpus(2))
    plan(large, gpus(2), {"adapters": {"max_loaded": 9}})


def test_on_gpus_they_are_computed_by_other_kernels_and_placed_as_decode_servers(zoo: Any) -> None:
    made = plan(zoo, gpus(4), {"adapters": {"replicas": 2, "gpus": [2, 3]}})
    group = [server for server in made.servers if server.module == "adapters"]
    assert [server.gpus for server in group] == [(2,), (3,)]
    assert value_of(group[0].command, "--lora-backend") == "csgmv"
    assert "adapters of rank 8" in group[0].memory.kind


def test_what_the_table_leaves_out_is_as_in_decode(zoo: Any) -> None:
    made = plan(zoo, document={"decode": {"kv_tokens": 8192, "args": ["--schedule-policy", "lpm"]}, "adapters": {}})
    assert (made.servers[-1].memory.kv_tokens, made.servers[-1].command[-1]) == (8192, "lpm")
    made = plan(zoo, document={"decode": {"kv_tokens": 8192}, "adapters": {"kv_tokens": 4096}})
    assert [server.memory.kv_tokens for server in made.servers[1:]] == [8192, 4096]


def test_a_module_can_be_moved_out_of_the_group(zoo: Any) -> None:
    made = plan(zoo, document={"module": {"coding": {"own_server": True, "kv_tokens": 8192}}})
    assert servers(made)[1:] == [
        ("decode-code-0", "code"),
        ("decode-math-0", "math"),
        ("decode-adapters-0", "adapters"),
    ]
    assert [one.module for one in made.checkpoints] == ["code", "math"]
    assert (made.router.config.modules[0].group, made.servers[1].memory.kv_tokens) == (None, 8192)
    assert value_of(made.servers[-1].command, "--max-lora-rank") == "4"


def test_a_server_of_its_own_has_the_weights_of_the_base(zoo: Any) -> None:
    made = plan(replace(zoo, sizes={"code": 6_000}), document={"module": {"code": {"own_server": True}}})
    assert made.servers[1].memory.weight_bytes == made.servers[0].memory.weight_bytes


def test_settings_of_servers_that_a_module_has_not_are_refused(zoo: Any) -> None:
    with pytest.raises(PlanError, match=r"module\.coding\.kv_tokens: code is an adapter .* own_server = true"):
        plan(zoo, document={"module": {"coding": {"kv_tokens": 8192}}})


def test_the_base_is_served_by_the_servers_that_have_its_weights(zoo: Any) -> None:
    made = plan(zoo, serve_base=True)
    assert servers(made) == servers(plan(zoo))
    assert made.router.config.modules[-1].model_dump(include={"name", "group", "adapter"}) == {
        "name": zoo.base.name,
        "group": "adapters",
        "adapter": None,
    }
    apart = plan(zoo, serve_base=True, document={"module": {zoo.base.name: {}}})
    assert ("decode-qwen3-tiny-0", "qwen3-tiny") in servers(apart)


def test_no_module_may_have_the_groups_name(zoo: Any) -> None:
    with pytest.raises(PlanError, match="a module is called adapters"):
        plan(replace(zoo, names=zoo.names | {"adapters": ()}))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"max_loras_per_batch": 8, "max_loaded": 8}, "max_loaded = 8 must be more than max_loras_per_batch = 8"),
        ({"targets": ["embed_tokens"]}, "'embed_tokens' is no layer that adapters change"),
        ({"ports": [1, 2]}, "adapters.ports has 2 ports for 1 replicas"),
    ],
)
def test_settings_that_make_no_sense_are_refused(zoo: Any, table: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan(zoo, document={"adapters": table})


# --- live


def test_one_more_adapter_needs_no_server(zoo: Any) -> None:
    running = plan(zoo, modules=["code", "math"])
    added = plan_module(zoo, running, "sums", version=3)
    assert (added.servers, added.workers, added.checkpoint) == ((), (), None)
    assert added.adapter is not None
    assert (added.adapter.name, added.entry.adapter, added.entry.group) == ("sums@3", "sums@3", "adapters")


def test_the_first_adapter_brings_its_servers(zoo: Any) -> None:
    added = plan_module(zoo, plan(zoo, modules=["math"]), "code")
    assert [(server.name, server.module) for server in added.servers] == [("decode-adapters-0", "adapters")]
    assert [(worker.module, worker.version) for worker in added.workers] == [("adapters", 1)]


@pytest.mark.parametrize(("there", "added"), [("code", "adapters"), ("adapters", "code")])
def test_a_module_with_the_groups_name_and_an_adapter_cannot_meet(zoo: Any, there: str, added: str) -> None:
    named = replace(zoo, names=zoo.names | {"adapters": ()})
    with pytest.raises(PlanError, match="a module is called adapters"):
        plan_module(named, plan(named, modules=[there]), added)


def test_the_first_adapters_of_a_fleet_on_gpus_can_be_too_many(zoo: Any) -> None:
    large = replace(zoo, adapters=dict.fromkeys(zoo.adapters, AdapterShape(rank=8, targets=QKV, bytes=10**9)))
    small = {"prefill": {"kv_tokens": 8192}, "decode": {"kv_tokens": 8192}}
    with pytest.raises(PlanError, match=r"24\.0 GiB of main memory, .* 29\.8 GiB: lower max_loaded"):
        plan_module(large, plan(large, gpus(3), small, modules=["math"]), "code")
    plan_module(large, plan(large, gpus(3), small | {"adapters": {"max_loaded": 9}}, modules=["math"]), "code")


@pytest.mark.parametrize(
    ("there", "module", "said"),
    [
        (["sums"], "code", "its rank is 8, and the servers of adapters were started for 4 at most"),
        (
            ["code"],
            "tools",
            "it changes down_proj, and the servers of adapters were started for k_proj, q_proj, v_proj",
        ),
    ],
)
def test_an_adapter_that_servers_have_no_room_for_is_refused(
    zoo: Any, there: list[str], module: str, said: str
) -> None:
    with pytest.raises(PlanError, match=f"{said}; set max_rank and targets"):
        plan_module(zoo, plan(zoo, modules=there), module)


def test_room_can_be_kept_for_adapters_to_come(zoo: Any) -> None:
    document = {"adapters": {"max_rank": 16, "targets": ["down_proj", "up_proj"]}}
    running = plan(zoo, document=document, modules=["sums"])
    assert plan_module(zoo, running, "code").servers == ()
    assert plan_module(zoo, running, "tools").servers == ()
