"""The plan as people and programs read it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psserve.fleet.plan.show import (
    PLAN_COLUMNS,
    context_note,
    idle_gpus,
    plan_commands,
    plan_json,
    plan_rows,
    split_note,
)
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import CPU, SHELL, gpus, plan


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    return FakeZoo(tmp_path / "a zoo", FakeBase(tmp_path / "base"))


def test_rows_say_device_memory_and_ports(zoo: Any) -> None:
    made = plan(zoo, gpus(2), {"decode": {"kv_tokens": 65536}})
    prefill, code, *_, router = [dict(zip(PLAN_COLUMNS, row, strict=True)) for row in plan_rows(made)]
    assert prefill["bootstrap"] == str(made.servers[0].bootstrap_port)
    assert {key: code[key] for key in PLAN_COLUMNS[:9]} == {
        "server": "decode-code-0",
        "role": "decode",
        "module": "code",
        "device": "cuda:1",
        "weights": "1.9 MiB",
        "KV": "32.0 MiB",
        "KV tokens": "65536",
        "CUDA": "1.7 GiB",
        "of GPU": "2%",
    }
    assert (router["server"], router["port"]) == ("router", str(made.router.port))


def test_commands_are_the_processes_own_and_can_be_pasted(zoo: Any) -> None:
    made = plan(zoo, env={"GREETING": 'it\'s "me"'})
    lines = plan_commands(made, SHELL).splitlines()
    for process in (*made.servers, made.router):
        words = shlex.split(lines[lines.index(f"# {process.name}") + 1])
        assert tuple(words[-len(process.command) :]) == process.command
        variables = dict(word.split("=", 1) for word in words[1 : -len(process.command)])
        assert words[0] == "env"
        assert SHELL | variables == SHELL | dict(process.env)


def test_json_has_bytes_and_shares(zoo: Any) -> None:
    made = plan(zoo, gpus(1), {"prefill": {"memory_fraction": 0.25}})
    server = json.loads(json.dumps(plan_json(made)))["servers"][0]
    assert server["gpus"] == [0]
    assert server["gpu_share"] == pytest.approx(0.25, abs=1e-6)
    assert server["kv_bytes"] == made.servers[0].memory.kv_bytes


def test_values_of_secret_variables_are_masked(zoo: Any) -> None:
    made = plan(zoo, env={"HF_TOKEN": "hush", "TOKENIZERS_PARALLELISM": "true"})
    for text in (plan_commands(made, {}), json.dumps(plan_json(made))):
        assert "hush" not in text
        assert "***" in text
    assert "TOKENIZERS_PARALLELISM=true" in plan_commands(made, {})


def test_a_context_that_is_cut_is_said(zoo: Any) -> None:
    cut = context_note(plan(zoo, kv_tokens=1024), 4096)
    assert cut is not None
    assert cut.startswith(
        "the context is cut to 880 tokens, of the base's 4096: prefill-0 has a KV pool of 1024 tokens"
    )
    assert context_note(plan(zoo, kv_tokens=1024, context_length=512), 4096) is None
    assert context_note(plan(zoo), 4096) is None


def test_idle_gpus_are_noticed(zoo: Any) -> None:
    assert idle_gpus(plan(zoo, gpus(5), prefill__replicas=1)) == [3, 4]
    assert idle_gpus(plan(zoo, gpus(2))) == []
    assert idle_gpus(plan(zoo, gpus(2), device="cpu")) == []


def test_how_kv_is_shared_out_is_said_where_servers_share_a_device(zoo: Any) -> None:
    for machine in (CPU, gpus(1)):
        made = plan(zoo, machine, context_length=2048, transfer="nixl")
        sizes = [server.memory.kv_tokens for server in made.servers]
        assert (split_note(made) or "").startswith(f"{sizes[0]} of {sum(sizes)} KV tokens (60%) are prefill servers'")
        assert "--context-length" not in (split_note(made) or "")
    large = plan(zoo, document={"decode": {"kv_tokens": 65_536}}, transfer="nixl")
    assert "--context-length" not in (split_note(large) or "")
    zoo = replace(zoo, base=replace(zoo.base, context_length=32_768))
    assert "a shorter --context-length gives them more" in (split_note(plan(zoo)) or "")
    assert split_note(plan(zoo, gpus(2))) is None
    assert split_note(plan(zoo, kv_tokens=4096, transfer="nixl")) is None
    assert split_note(plan(zoo, gpus(1), {"prefill": {"memory_fraction": 0.5}})) is None
