"""Which hooks a server gets."""

from __future__ import annotations

import pytest

from psserve.engine import plugin
from psserve.engine.settings import NegativeControl, Role, Settings


def targets(role: Role) -> set[str]:
    return {hook.target for hook in plugin.declared(Settings(role, False, NegativeControl.NONE))}


@pytest.mark.parametrize("cuda", [True, False])
def test_a_stock_server_has_nothing_but_what_a_cpu_needs(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    stock = targets(Role.STOCK)
    assert bool(stock) is not cuda
    assert stock == targets(Role.PREFILL) & targets(Role.DECODE) - disconnect_targets()


def disconnect_targets() -> set[str]:
    from psserve.engine.fixes import disconnect

    return {hook.target for hook in disconnect.hooks()}
