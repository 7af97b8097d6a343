from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from psserve.training.reference import load_model, load_pair
from psserve.zoo.synthetic.quantised import CONFIGS
from psserve.zoo.synthetic.zoo import build_zoo

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def quantised(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from measuring import quantised

    return quantised


def test_the_methods_are_all_that_can_be_served(quantised: ModuleType) -> None:
    assert sorted(quantised.METHODS) == sorted(CONFIGS)


def test_all_but_the_first_module_are_quantised_and_have_a_plain_twin(quantised: ModuleType, tmp_path: Path) -> None:
    plain = build_zoo(tmp_path / "plain", modules=["alpha", "beta"], num_hidden_layers=1)
    zoo, references = quantised.quantised_zoo(plain, tmp_path / "work", "awq", size=32)
    assert zoo.base.quantisation == "awq of 4 bits, groups of 32"
    assert {module.name: module.quantisation for module in zoo.modules()} == {"alpha": "none", "beta": None}
    assert references.keys() == {zoo.base.name, "beta"}
    near, exact = load_model(references["beta"]), load_pair(plain, "beta").module
    for (name, rounded), original in zip(near.named_parameters(), exact.parameters(), strict=True):
        assert 0 <= (rounded - original).abs().mean() < 0.12 * original.std() + 1e-6, name
        assert rounded.dtype == torch.float32


@pytest.mark.parametrize(("method", "expected"), [(None, 0.25), ("gptq", 0.25), ("fp8-blocks", 1.0)])
def test_activations_that_are_rounded_may_be_farther_off(
    quantised: ModuleType, method: str | None, expected: float
) -> None:
    assert quantised.tolerance(method, "bfloat16") == expected
