"""NIXL on a machine without a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from psserve.engine.cpu import nixl
from psserve.engine.handover.sglang.scheduler import KVArgs


@pytest.fixture(autouse=True)
def stock_config(monkeypatch: pytest.MonkeyPatch) -> type:
    """NIXL's own class of settings, put back afterwards."""
    from nixl._api import nixlBind

    monkeypatch.setattr(nixlBind, "nixlAgentConfig", nixlBind.nixlAgentConfig)
    return nixlBind.nixlAgentConfig  # type: ignore[no-any-return]


def start_manager() -> KVArgs:
    """What NIXL's manager is given, as it meets it."""
    args = SimpleNamespace(kv_data_ptrs=[1, 2, 3], kv_data_mem_kinds=["VRAM"] * 3)
    (hook,) = nixl.hooks()
    assert hook.function(object(), args, "decode", is_mla_backend=False) is None
    return args


def test_every_kv_buffer_is_host_memory() -> None:
    assert start_manager().kv_data_mem_kinds == ["DRAM"] * 3


def test_the_progress_thread_pauses_between_polls(stock_config: type) -> None:
    from nixl._api import nixlBind

    start_manager()
    config = nixlBind.nixlAgentConfig()
    assert isinstance(config, stock_config)
    config.pthrDelay = 0  # as NIXL's agent does
    assert config.pthrDelay == 500
    config.pthrDelay = 900
    assert config.pthrDelay == 900


def test_a_second_manager_changes_nothing_more() -> None:
    from nixl._api import nixlBind

    start_manager()
    first = nixlBind.nixlAgentConfig
    start_manager()
    assert nixlBind.nixlAgentConfig is first
