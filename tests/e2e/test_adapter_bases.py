"""Adapters that share servers, on each architecture that test_adapters.py does not have: answers are the reference's.

One small fleet each, with three adapters on one server; in `make test-bases` alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from psserve.zoo.checkpoints.architectures import TABLE, Architecture
from tests.e2e.adapters import AdapterOracle, build_adapters
from tests.e2e.client import agent_sessions, client_of, random_ids
from tests.e2e.fleet import RunningFleet, launched

pytestmark = [pytest.mark.e2e, pytest.mark.long]

PAGE = 16
ELSEWHERE = ("llama", "qwen3")


class Served(NamedTuple):
    """A running fleet and what it must answer."""

    fleet: RunningFleet
    oracle: AdapterOracle


def shapes(row: Architecture) -> dict[str, dict[str, Any]]:
    """Three adapters that differ in rank, scale and layers, of the layers that servers may adapt."""
    fused = row.model_type == "phi3"
    attention = ["qkv_proj", "o_proj"] if fused else ["q_proj", "k_proj", "v_proj", "o_proj"]
    network = ["gate_up_proj", "down_proj"] if fused else ["gate_proj", "up_proj", "down_proj"]
    everything = attention + (network if "mlp" in row.adapters else [])
    some = [attention[0], "down_proj"] if "mlp" in row.adapters else ["v_proj"]
    return {
        "plain": {"r": 4, "target_modules": everything},
        "rslora": {"r": 6, "use_rslora": True, "target_modules": some},
        "patterns": {
            "r": 3,
            "target_modules": everything,
            "rank_pattern": {"o_proj": 5},
            "alpha_pattern": {attention[0]: 3},
        },
    }


@pytest.fixture(
    scope="module",
    params=[row.model_type for row in TABLE.values() if row.adapters and row.model_type not in ELSEWHERE],
)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    row = next(row for row in TABLE.values() if row.model_type == request.param)
    zoo = build_adapters(tmp_path_factory.mktemp(row.model_type), row.model_type, shapes(row))  # type: ignore[arg-type]
    with launched(zoo.path, "--page-size", str(PAGE)) as fleet:
        yield Served(fleet, AdapterOracle(zoo))


async def test_growing_contexts_that_alternate_adapters(served: Served) -> None:
    async with client_of(served.fleet.url) as client:
        modules = [module.name for module in served.oracle.zoo.modules()]
        assert await agent_sessions(client, served.oracle, modules, sessions=3, turns=6, max_tokens=8) == 18


async def test_all_adapters_in_one_batch(served: Served) -> None:
    rng = random.Random(16)
    modules = [module.name for module in served.oracle.zoo.modules()] * 4
    async with client_of(served.fleet.url) as client:
        prompts = [(module, random_ids(rng, rng.randrange(1, 200))) for module in modules]
        await asyncio.gather(*(client.check(served.oracle, module, prompt, 12) for module, prompt in prompts))
