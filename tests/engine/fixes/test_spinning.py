"""How often a scheduler looks whether KV has come."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from psserve.engine.fixes import spinning
from psserve.engine.fixes.spinning import Wait


def test_pauses_grow_with_the_wait_up_to_a_bound() -> None:
    wait = Wait()
    assert [wait.pause_s(7, now) for now in (10.0, 10.001, 10.04, 12.0)] == pytest.approx(
        [0.0005, 0.0005, 0.002, 0.005]
    )


def test_work_in_between_begins_a_new_wait() -> None:
    wait = Wait()
    wait.pause_s(7, 10.0)
    assert wait.pause_s(7, 20.0) > wait.pause_s(8, 20.0) == 0.0005


@pytest.mark.parametrize("fully_idle", [True, False])
def test_a_scheduler_pauses_only_while_transfers_are_in_flight(
    fully_idle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(spinning, "_WAIT", Wait())
    monkeypatch.setattr(spinning, "_COME", SimpleNamespace(wait=slept.append, clear=lambda: None))
    pause = spinning.pause_hook()
    assert pause.function(None, SimpleNamespace(is_fully_idle=lambda: fully_idle, forward_ct=3)) is None
    assert slept == ([] if fully_idle else [0.0005])


def test_what_has_come_ends_one_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spinning, "_WAIT", SimpleNamespace(pause_s=lambda *now: 10.0))
    spinning.end_pause()
    pause = spinning.pause_hook()
    pause.function(None, SimpleNamespace(is_fully_idle=lambda: False, forward_ct=3))  # would last ten seconds
    assert not spinning._COME.is_set()


def test_on_gpus_nixls_progress_thread_pauses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from nixl._api import nixlBind

    monkeypatch.setattr(nixlBind, "nixlAgentConfig", nixlBind.nixlAgentConfig)
    _, before = spinning.hooks()
    args = SimpleNamespace(kv_data_ptrs=[1], kv_data_mem_kinds=["VRAM"])
    assert before.function(object(), args, "decode") is None
    config = nixlBind.nixlAgentConfig()
    config.pthrDelay = 0  # as NIXL's agent does
    assert config.pthrDelay == 500
    assert args.kv_data_mem_kinds == ["VRAM"]
