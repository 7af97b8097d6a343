"""The zoo of many adapters that is measured is one that fleets can serve."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from psserve.fleet import FleetOptions, make_plan
from psserve.zoo import serving_form
from psserve.zoo.verify import verify

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_a_few_adapters_are_added_and_the_others_are_copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    bench = importlib.import_module("measuring.adapters")
    monkeypatch.setattr(bench, "ORIGINALS", 2)
    zoo = bench.make_zoo(tmp_path / "zoo", 5, None, rank=2)
    assert [module.name for module in zoo.modules()] == bench.names(5)
    assert list(verify(zoo)) == []
    forms = [serving_form(zoo, module) for module in zoo.modules()]
    weights = [(form / "adapter_model.safetensors").read_bytes() for form in forms]
    assert weights[0] == weights[2] == weights[4] != weights[1] == weights[3]
    assert [server.module for server in make_plan(zoo, FleetOptions()).servers] == [None, "adapters"]
