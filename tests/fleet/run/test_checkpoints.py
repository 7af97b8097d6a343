"""What servers load stays what it is while the zoo changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import ManifestError
from psserve.fleet.live.supply import ZooSupply
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.run import checkpoints
from psserve.fleet.run.checkpoints import make_checkpoint, make_named, weights_of
from psserve.zoo import Zoo
from psserve.zoo.materialise import materialise
from psserve.zoo.synthetic.zoo import build_zoo

WEIGHTS = "model.safetensors"


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    """Has alpha and beta; beta's weights are also in `other`, to be imported."""
    zoo = build_zoo(tmp_path / "zoo", "qwen3", modules=("alpha", "beta"))
    other = tmp_path / "other"
    shutil.copytree(zoo.base.path, other)
    shutil.copytree(zoo.module("beta").path, other, dirs_exist_ok=True)
    (other / "module.toml").unlink()
    return zoo


def replace(zoo: Zoo, store: str = "copy") -> None:
    zoo.add("alpha", zoo.path.parent / "other", allow_naive=True, replace=True, store=store)  # type: ignore[arg-type]


@pytest.mark.parametrize("store", ["copy", "delta"])
def test_checkpoint_outlives_its_module(zoo: Zoo, tmp_path: Path, store: str) -> None:
    replace(zoo, store)
    beta = zoo.module("beta").path / WEIGHTS
    made = tmp_path / "made"
    make_checkpoint(zoo, zoo.module("alpha"), made)
    assert (made / WEIGHTS).read_bytes() == beta.read_bytes()
    assert (made / WEIGHTS).stat().st_nlink > 1  # nothing was copied
    before = beta.read_bytes()
    zoo.remove("beta")
    zoo.remove("alpha")
    assert (made / WEIGHTS).read_bytes() == before


def test_made_again_it_has_the_modules_present_weights(zoo: Zoo, tmp_path: Path) -> None:
    made = tmp_path / "made"
    make_checkpoint(zoo, zoo.module("alpha"), made)
    old = (made / WEIGHTS).read_bytes()
    replace(zoo)
    assert (made / WEIGHTS).read_bytes() == old
    make_checkpoint(zoo, zoo.module("alpha"), made)
    assert (made / WEIGHTS).read_bytes() == (zoo.module("beta").path / WEIGHTS).read_bytes()


@pytest.mark.parametrize("store", ["copy", "delta"])
@pytest.mark.parametrize("name", ["alpha", "alpha@2"])
def test_a_module_that_is_replaced_meanwhile_is_made_as_it_is_named(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, name: str
) -> None:
    first = (zoo.module("alpha").path / WEIGHTS).read_bytes()
    original = shutil.copytree(zoo.base.path, tmp_path / "original")
    (original / WEIGHTS).write_bytes(first)
    replace(zoo, store)
    second = (zoo.module("beta").path / WEIGHTS).read_bytes()
    stale = zoo.module("alpha@2")

    def replace_first(*arguments: Any) -> Path:
        monkeypatch.undo()
        zoo.add("alpha", original, allow_naive=True, replace=True, store=store)  # type: ignore[arg-type]
        return materialise(*arguments)

    monkeypatch.setattr(checkpoints, "materialise", replace_first)
    made = make_named(zoo, name, tmp_path / "made")
    expected = first if name == "alpha" else second
    assert (tmp_path / "made" / WEIGHTS).read_bytes() == expected
    assert weights_of(made) == weights_of(zoo.module(name))
    if store == "copy":  # what was read before has the other one's weights
        make_checkpoint(zoo, stale, tmp_path / "stale")
        assert (tmp_path / "stale" / WEIGHTS).read_bytes() == first


def test_a_damaged_module_is_an_error_and_not_tried_for_ever(zoo: Zoo, tmp_path: Path) -> None:
    replace(zoo, "link")
    weights = tmp_path / "other" / WEIGHTS
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(ManifestError, match="changed since module 'alpha' was linked"):
        make_named(zoo, "alpha", tmp_path / "made")


def test_weights_have_a_name_of_their_own(zoo: Zoo) -> None:
    before = weights_of(zoo.module("alpha"))
    assert before != weights_of(zoo.module("beta"))
    replace(zoo, "delta")
    assert weights_of(zoo.module("alpha")) == weights_of(zoo.module("beta"))  # however they are stored


def test_offers_are_the_zoos_modules_as_they_are_now(zoo: Zoo) -> None:
    supply = ZooSupply(zoo.path, FleetOptions())
    assert supply.offers().modules.keys() == {"alpha", "beta"}
    (zoo.module("beta").path / "module.toml").write_text("name = ")
    offers = supply.offers()
    assert offers.modules.keys() == {"alpha"}
    assert "not TOML" in offers.damaged["beta"]
    assert offers.modules["alpha"].entry.name == "alpha"
