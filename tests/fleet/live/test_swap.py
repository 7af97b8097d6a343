"""What a change leaves when it fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from psserve.errors import FleetError
from psserve.fleet.live import swap
from psserve.fleet.live.swap import Swap
from psserve.fleet.plan.spec import ModulePlan, PlannedAdapter
from psserve.fleet.run.member import Limits
from tests.fleet.fake_plan import _entry, plan_of


class DeafRouter:
    """The part of a roster that a change of adapters needs, with a router that takes nothing over."""

    def __init__(self, tmp_path: Path) -> None:
        self.config: Any = plan_of(tmp_path, {}, [1], tmp_path).router.config
        self.router = SimpleNamespace(spec=SimpleNamespace(log=tmp_path / "router.log"))
        self.coming: list[Any] = []
        self.is_followed = False

    def tell(self, **told: Any) -> None:
        self.config = self.config.model_copy(update={"serial": self.config.serial + 1})


class Adapters:
    """Notes what becomes of adapters."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def load(self, name: str) -> bool:
        self.done.append(f"load {name}")
        return True

    async def discard(self, name: str) -> None:
        self.done.append(f"discard {name}")

    def leave(self, name: str) -> None:
        self.done.append(f"leave {name}")


async def test_an_adapter_that_requests_may_have_got_leaves_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "_FOLLOW_S", 0.0)
    adapters: Any = Adapters()
    roster: Any = DeafRouter(tmp_path)
    planned = PlannedAdapter(module="b", name="b@1")
    new = ModulePlan(
        module="b",
        version=1,
        servers=(),
        checkpoint=None,
        adapter=planned,
        entry=_entry("b", {"adapter": True}),
        workers=(),
    )

    async def make(new: ModulePlan) -> None:
        pass

    change = Swap(roster, adapters, Limits(), lambda text: None, module="b", listed=new.entry, new=new)
    with pytest.raises(FleetError, match="does not take over"):
        await change.run(make)
    assert adapters.done == ["load b@1", "leave b@1"]
