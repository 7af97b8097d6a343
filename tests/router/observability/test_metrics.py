"""What /metrics says of requests, over real HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.router.conftest import Fleet, eventually

Samples = dict[tuple[str, str], float]
"""(name, module) -> value, summed over other labels."""
PROMPT = "a prompt that two modules are asked about, longer than two blocks of the index " * 2


async def samples(fleet: Fleet) -> Samples:
    """All samples, as Prometheus' own parser reads them."""
    _, page = await fleet.get("/metrics")
    found: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            key = (sample.name, sample.labels.get("module", ""))
            found[key] = found.get(key, 0.0) + sample.value
    return found


@pytest.fixture
async def known_size(make_fleet: Callable[..., Awaitable[Fleet]]) -> Fleet:
    base = {"name": "base", "path": "/zoo/base", "vocab_size": 512, "context_length": 4096, "kv_token_bytes": 100}
    return await make_fleet(base=base)


async def test_tokens_are_counted_where_they_were_found(known_size: Fleet) -> None:
    fleet = known_size
    await fleet.complete("code", PROMPT)
    fleet.prefill.cached_tokens, fleet.math.cached_tokens = len(PROMPT) - 1, 64
    await fleet.complete("math", PROMPT, max_tokens=7)

    values = await samples(fleet)
    assert values["psserve_prompt_tokens_total", "math"] == len(PROMPT)
    assert values["psserve_cached_tokens_total", "math"] == len(PROMPT) - 1
    assert values["psserve_shared_prefix_tokens_total", "math"] == len(PROMPT) - 1
    assert values["psserve_decode_cached_tokens_total", "math"] == 64
    assert values["psserve_kv_transferred_tokens_total", "math"] == len(PROMPT) - 1 - 64
    assert values["psserve_kv_transferred_bytes_total", "math"] == (len(PROMPT) - 1 - 64) * 100
    assert values["psserve_generation_tokens_total", "math"] == 7
    assert values["psserve_shared_prefix_tokens_total", "code"] == 0


async def test_the_choices_of_a_prompt_share_it_once(fleet: Fleet) -> None:
    await fleet.complete("code", PROMPT)
    fleet.prefill.cached_tokens = len(PROMPT) - 1
    await fleet.complete("math", PROMPT, n=3)
    assert (await samples(fleet))["psserve_shared_prefix_tokens_total", "math"] == len(PROMPT) - 1


async def test_a_stream_is_timed(fleet: Fleet) -> None:
    await fleet.stream(max_tokens=5)
    await eventually(lambda: fleet.state.activity.ended)
    values = await samples(fleet)
    for name in ("queue", "prefill", "first_step", "ttft", "request_duration"):
        assert values[f"psserve_{name}_seconds_count", "math"] == 1, name
    assert values["psserve_itl_seconds_count", "math"] <= 4  # what arrives together is one arrival


async def test_an_answer_that_is_not_streamed_has_no_times_of_tokens(fleet: Fleet) -> None:
    await fleet.complete()
    values = await samples(fleet)
    assert values["psserve_prefill_seconds_count", "math"] == 1
    assert ("psserve_first_step_seconds_count", "math") not in values
    assert ("psserve_tpot_seconds_count", "math") not in values


async def test_clients_cannot_make_series(fleet: Fleet) -> None:
    for number in range(3):
        await fleet.complete(f"no-such-model-{number}")
        await fleet.get(f"/no/such/path/{number}")
    modules = {module for _, module in await samples(fleet)}
    assert modules <= {"", "-", "math", "code"}
