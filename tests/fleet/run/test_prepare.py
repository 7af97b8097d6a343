"""What is prepared is what was planned, however the zoo changes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from psserve.errors import FleetError, StartError
from psserve.fleet import FleetPlan
from psserve.fleet.plan.layout import adapters_dir
from psserve.fleet.run.checkpoints import weights_of
from psserve.fleet.run.prepare import clean_up, make_run_dir, prepare
from psserve.zoo import Zoo, serving_form
from psserve.zoo.synthetic.zoo import build_zoo
from tests.fleet.planning import plan
from tests.zoo.checkpoints.test_lora import change_tensors, make_adapter

WEIGHTS = "model.safetensors"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return tmp_path / "adapter"


@pytest.fixture
def zoo(tmp_path: Path, adapter: Path) -> Zoo:
    """Has alpha and beta, and gamma, an adapter."""
    zoo = build_zoo(tmp_path / "zoo", modules=("alpha", "beta"))
    zoo.add("gamma", make_adapter(zoo.base.path, adapter), allow_naive=True)
    return zoo


@pytest.fixture
def planned(zoo: Zoo) -> Iterator[FleetPlan]:
    made = plan(zoo)
    make_run_dir(made.run_dir)
    yield made
    clean_up(made)


def replace(zoo: Zoo, adapter: Path, keep_versions: int) -> None:
    """Give alpha the base's weights, and gamma others of the same size."""
    zoo.add("alpha", zoo.base.path, allow_naive=True, replace=True, keep_versions=keep_versions)
    change_tensors(adapter, lambda tensors: [tensor.mul_(2) for tensor in tensors.values()])
    zoo.add("gamma", adapter, allow_naive=True, replace=True, keep_versions=keep_versions)


def test_modules_that_were_replaced_since_are_served_as_planned(zoo: Zoo, planned: FleetPlan, adapter: Path) -> None:
    weights = {module.name: weights_of(module) for module in zoo.modules()}
    old = (zoo.module("alpha").path / WEIGHTS).read_bytes()
    replace(zoo, adapter, keep_versions=3)
    assert prepare(planned) == weights
    assert (planned.run_dir / "checkpoints" / "alpha" / WEIGHTS).read_bytes() == old
    form = (adapters_dir(planned.run_dir) / "gamma@1").resolve()
    assert form == serving_form(zoo, zoo.module("gamma@1"))
    assert form != serving_form(zoo, zoo.module("gamma"))


def test_a_planned_version_that_has_gone_is_an_error(zoo: Zoo, planned: FleetPlan, adapter: Path) -> None:
    replace(zoo, adapter, keep_versions=1)
    wanted = r"no version 1 of module 'alpha' \(versions: 2\): the zoo was changed while .* launch it again"
    with pytest.raises(FleetError, match=wanted):
        prepare(planned)


@pytest.mark.parametrize("count", [1, 2])
def test_it_can_be_ended_between_two_modules(planned: FleetPlan, count: int) -> None:
    checks = iter(range(count))

    def check() -> None:
        if next(checks, None) is None:
            raise StartError("stopped")

    with pytest.raises(StartError, match="stopped"):
        prepare(planned, check)
    made = {path.name for path in (planned.run_dir / "checkpoints").iterdir()}
    assert made == ({"alpha"} if count == 1 else {"alpha", "beta"})
