"""Which transfer `auto` is: one KV pool where that takes nothing: neither room nor an answer's end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.contracts.one_pool import LARGEST_POOL, longest_answer
from psserve.errors import PlanError
from psserve.fleet.plan import transfer
from psserve.fleet.plan.plan_module import plan_module
from psserve.fleet.plan.settings import within_pool
from psserve.fleet.plan.sglang_args import EngineSettings
from psserve.fleet.plan.show import plan_json, transfer_note
from psserve.fleet.plan.transfer import chosen_transfer
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import CPU, GIB, gpus, plan

CONTEXT = 4096
SETTINGS = EngineSettings(
    device="cpu",
    dtype="float32",
    transfer="nixl",
    page_size=16,
    context_length=CONTEXT,
    chunked_prefill_size=64,
    max_running_requests=32,
)


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    return FakeZoo(tmp_path, FakeBase(tmp_path / "base", context_length=CONTEXT))


@pytest.fixture(autouse=True)
def sglang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "installed_sglang", lambda: "0.5.23")


def test_one_pool_is_chosen_where_all_is_as_large_as_with_copies(zoo: Any) -> None:
    chosen, copies = plan(zoo), plan(zoo, transfer="nixl")
    assert chosen.basis.settings.transfer == "shared"
    assert [server.memory for server in chosen.servers] == [server.memory for server in copies.servers]
    assert chosen.router.config.base.context_length == copies.router.config.base.context_length == CONTEXT
    assert transfer_note(chosen) == (
        "--transfer auto is shared: contexts are stored once, and answers may be as long as the context"
        " (docs/one-pool.md)"
    )
    assert plan_json(chosen)["why_transfer"] == chosen.basis.why_transfer


@given(context=st.integers(1, 20_000), decode=st.integers(64, 20_000))
def test_no_answer_is_shorter_than_with_copies(context: int, decode: int) -> None:
    settings: Any = replace(SETTINGS, context_length=context)
    servers: Any = [
        SimpleNamespace(role=role, name=role, options=SimpleNamespace(tp=1)) for role in ("prefill", "decode")
    ]
    memory: Any = [SimpleNamespace(kv_tokens=16_384), SimpleNamespace(kv_tokens=decode)]
    chosen, _ = chosen_transfer(settings, servers, memory, explicit=False, hosts=1, platform="linux")
    copies = within_pool(settings, min(16_384, decode), explicit=False)
    assert chosen.context_length == copies.context_length
    assert (chosen.transfer == "shared") == (longest_answer(decode, 16) >= copies.context_length)


def test_a_module_that_comes_later_has_room_for_whole_answers_too(zoo: Any) -> None:
    (server,) = plan_module(zoo, plan(zoo, modules=("math",)), "code").servers
    assert longest_answer(server.memory.kv_tokens, 16) >= CONTEXT
    assert server.env["PSSERVE_ONE_POOL"] == "1"


def test_a_module_that_comes_later_without_room_for_them_is_refused(zoo: Any) -> None:
    running = plan(zoo, document={"module": {"code": {"kv_tokens": 4_624}}}, modules=("math",))
    with pytest.raises(PlanError, match=r"^decode-code-0 would end answers after 4046 tokens, of a context of 4096: "):
        plan_module(zoo, running, "code")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"machine": gpus(2)}, "nothing of it has run on a GPU yet"),
        ({"prefill__replicas": 9}, "there are 9 prefill servers, and it works with 8 at most"),
        (
            {"machine": replace(CPU, total_bytes=900 * GIB), "prefill__kv_tokens": LARGEST_POOL},
            f"prefill-0 has {LARGEST_POOL} KV tokens, and it works with {LARGEST_POOL - 1} at most",
        ),
        (
            {"kv_tokens": 4_624},
            "decode-code-0 would end answers after 4046 tokens, of a context of 4096",
        ),
    ],
)
def test_else_every_server_has_copies_and_the_reason_is_said(zoo: Any, asked: dict[str, Any], reason: str) -> None:
    made = plan(zoo, **asked)
    assert made.basis.settings.transfer == "nixl"
    assert transfer_note(made) == f"--transfer auto is nixl and not shared: {reason} (docs/one-pool.md)"


def test_pools_that_do_not_hold_the_context_that_was_asked_for_are_refused_as_with_copies(zoo: Any) -> None:
    with pytest.raises(PlanError, match="a KV pool of 1024 tokens holds at most"):
        plan(zoo, document={"decode": {"kv_tokens": 1024}}, context_length=CONTEXT)


@pytest.mark.parametrize("release", ["0.5.17", "0.5.18", "0.5.21"])
def test_a_release_with_which_something_is_lost_copies(zoo: Any, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(transfer, "installed_sglang", lambda: release)
    made = plan(zoo)
    assert made.basis.settings.transfer == "nixl"
    assert made.basis.why_transfer == f"it is not the default with sglang {release}"


def test_a_transfer_that_was_asked_for_needs_no_reason(zoo: Any) -> None:
    for asked in ("nixl", "shared"):
        made = plan(zoo, transfer=asked)
        assert made.basis.settings.transfer == asked
        assert transfer_note(made) is None


@pytest.mark.parametrize(("platform", "hosts"), [("darwin", 1), ("linux", 2)])
def test_no_memory_in_common_no_pool_in_common(platform: str, hosts: int) -> None:
    server: Any = SimpleNamespace(role="prefill", options=SimpleNamespace(tp=1))
    memory: Any = SimpleNamespace(kv_tokens=16_384)
    chosen, _ = chosen_transfer(SETTINGS, [server], [memory], explicit=False, hosts=hosts, platform=platform)
    assert chosen == SETTINGS
