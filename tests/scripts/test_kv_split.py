"""What the script that measures the split of KV asks for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from psserve.fleet.plan.settings import pool_for


@pytest.fixture
def kv_split(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    return importlib.import_module("kv_split")


def test_sessions_grow_to_1500_tokens_and_ask_another_module_each_turn(kv_split: Any) -> None:
    made = importlib.import_module("measuring.held").session(3)
    assert sum(step.new_tokens + step.calls[0].output_tokens for step in made.steps) == 1_504
    assert [step.calls[0].module for step in made.steps] == ["delta", "alpha", "beta", "gamma"]


def test_they_fit_into_the_context_and_that_into_every_pool(kv_split: Any) -> None:
    assert kv_split.CONTEXT > 1_504
    assert pool_for(kv_split.CONTEXT, kv_split.PAGE) <= kv_split.KV_TOKENS * 2 // 5 // len(kv_split.MODULES)
