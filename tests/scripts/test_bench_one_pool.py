"""The script that measures one KV pool: what it asks for, and what it makes of what it finds."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from psserve.fleet.plan.settings import pool_for


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    return importlib.import_module("bench_one_pool")


def test_both_fleets_have_as_much_memory_and_room_for_a_session(script: Any) -> None:
    for transfer in script.TRANSFERS:
        sizes = script.sizes(transfer)
        assert sizes["prefill"] + len(script.MODULES) * sizes["decode"] == script.KV_TOKENS
        assert sizes["prefill"] >= pool_for(script.CONTEXT, script.PAGE)
    session = script.session(0, script.TURNS)
    assert sum(step.new_tokens + step.calls[0].output_tokens for step in session.steps) < script.CONTEXT


def test_the_pressure_is_between_what_private_pools_and_one_hold(script: Any) -> None:
    tokens = sum(step.new_tokens + step.calls[0].output_tokens for step in script.session(0, script.TURNS).steps)
    most = {transfer: script.sizes(transfer)["prefill"] // tokens for transfer in script.TRANSFERS}
    assert most["nixl"] < script.HIGH < most["shared"]


def test_figures_are_medians_of_paired_ratios(script: Any) -> None:
    load = {name: {"all_ms": time, "p95_session_ms": 2 * time} for name, time in (("shared", 50), ("nixl", 100))}
    found = {
        "stored": {"shared": 1.0, "nixl": 5.0},
        "held": {"shared": {"sessions": 22}, "nixl": {"sessions": 16}},
        "handoff_ms": [
            {"shared": {"transfer": one}, "nixl": {"transfer": other}} for one, other in ((1, 4), (3, 4), (1, 5))
        ],
        "low": [load],
        "pressure": [load],
    }
    figures = {figure.name: figure for figure in script.figures(found)}
    assert figures["hand-off of 1024 tokens"].value == 0.25
    assert figures["sessions that stay cached"].met is False
    assert figures["p95 of 20 sessions at a time"].met is True
