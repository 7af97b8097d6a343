"""Zoos that an older psserve made: a fleet of one is not planned if its base is one that is refused today."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.synthetic.zoo import build_zoo
from tests.fleet.planning import plan
from tests.zoo.old_zoos import WINDOWS, made_before


def test_a_base_that_would_be_served_wrongly_is_refused_by_name(tmp_path: Path) -> None:
    zoo = build_zoo(tmp_path / "zoo", "qwen3", modules=("alpha",))
    assert plan(zoo).servers
    assert plan(made_before(zoo)).servers
    with pytest.raises(IncompatibleCheckpoint, match="Qwen3ForCausalLM cannot be served with this: layers of sliding"):
        plan(made_before(zoo, **WINDOWS))
