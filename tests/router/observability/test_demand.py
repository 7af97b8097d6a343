"""What is asked of servers, by which they are scaled."""

from __future__ import annotations

import asyncio

from tests.router.admission.test_bounds import WAITING, WINDOW, crowd
from tests.router.conftest import Fleet, eventually
from tests.router.observability.test_metrics import samples

PROMPT = 10
"""Tokens of each prompt of the crowd."""


async def test_what_waits_and_what_runs_is_demand() -> None:
    admission, asking = await crowd(1)
    demand = admission.demand()
    output = admission.outputs.expected("math", 0)
    assert demand.decode == {"math": (WINDOW + WAITING) * (PROMPT + output)}
    assert demand.prefill == (WINDOW + WAITING) * PROMPT
    for task in asking[WINDOW:]:
        task.cancel()
    await asyncio.gather(*asking[WINDOW:], return_exceptions=True)
    assert admission.demand().prefill == WINDOW * PROMPT
    for task in asking[:WINDOW]:
        task.result().end()
    assert +admission.demand().decode == {}  # type: ignore[operator]
    assert admission.demand().prefill == 0


async def test_metrics_show_demand_beside_supply(fleet: Fleet) -> None:
    fleet.math.faults.append("hang")
    asking = asyncio.create_task(fleet.complete("math", "four", max_tokens=6))
    await eventually(lambda: fleet.state.table.decodes[0].running)
    _, page = await fleet.get("/metrics")
    asked = fleet.state.admission.demand().decode["math"]
    assert asked > 6
    assert f'psserve_decode_demand_tokens{{servers="math"}} {asked}.0' in page
    assert 'psserve_decode_demand_tokens{servers="code"} 0.0' in page
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await fleet.idle()
    assert (await samples(fleet))["psserve_prefill_demand_tokens", ""] == 0
