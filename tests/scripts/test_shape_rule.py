"""The rule for the width of the CPU table's model."""

from __future__ import annotations

from types import ModuleType

import pytest

from psserve.zoo.synthetic.zoo import new_model
from tests.scripts.test_bench_scripts import script


@pytest.fixture
def shape_rule(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("shape_rule", monkeypatch)


def test_a_decoded_token_of_the_papers_costs_as_much_as_thirteen_prefilled_ones(shape_rule: ModuleType) -> None:
    weights_s, context_s, linear_s = 15.01e9 / 1.4273e12, 1e4 * 131_072 / 1.4273e12, 13.96e9 / 156e12
    step_s = 1e-3 + weights_s + 20 * (context_s + linear_s)
    attention_s = 1e4 * 4 * 32 * 4096 / 156e12
    assert shape_rule.paper_ratio() == pytest.approx(step_s / 20 / (linear_s + attention_s), rel=1e-3)
    assert shape_rule.paper_ratio() == pytest.approx(12.9, abs=0.05)


def test_weights_are_those_of_the_tables_layers(shape_rule: ModuleType) -> None:
    layers = new_model("qwen3", shape_rule.SHAPE).model.layers
    matrices = sum(weight.numel() for weight in layers.parameters() if weight.ndim == 2)
    assert shape_rule.weights_of(shape_rule.SHAPE["hidden_size"]) == matrices


def test_what_a_step_costs_besides_weighs_less_in_a_wider_model(shape_rule: ModuleType) -> None:
    """Two rows in 1 ns a weight, 70 in 7: without that, a decoded token costs as much as five prefilled ones."""
    million = shape_rule.weights_of(1_024) / 1e6
    ratio = shape_rule.ratio_here(1_024, decoded=1e-9, prefilled=7e-9, step_s=million * 1e-3, batch=2)
    assert ratio == pytest.approx(10)
    assert shape_rule.ratio_here(2_048, decoded=1e-9, prefilled=7e-9, step_s=million * 1e-3, batch=2) == pytest.approx(
        6.25
    )


def test_the_nearest_ratio_counts(shape_rule: ModuleType) -> None:
    assert shape_rule.rule({512: 20.0, 768: 14.0, 1_024: 11.5}, wanted=12.9) == 768
