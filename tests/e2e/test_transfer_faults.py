"""F10: transfers of KV fail by chance on both sides, at one look in twenty (SGLang's own fault injection)."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.client import Client, client_of, random_ids
from tests.e2e.conftest import MODULES
from tests.e2e.fleet import launched, wait_idle
from tests.e2e.oracle import Oracle
from tests.e2e.watching import ERROR_FIELDS, pids

pytestmark = pytest.mark.e2e

CASES = int(os.environ.get("PSSERVE_TRANSFER_FAULT_CASES", "150"))
"""Requests; the list of faults has 500."""
AT_ONCE = 16
MAX_TOKENS = 6
BOUND_S = 90
"""For one request: 60 s, which SGLang lets a hand-over take, and what comes before and after."""
ENV = {"SGLANG_TEST_DISAGG_FAILURE_PROB": "0.05"}
NO_BREAKER = "[router.breaker]\nfailures = 1000000\n"
"""Every request must reach the servers."""


async def test_transfers_that_fail_by_chance_end_as_right_answers_or_clean_errors_and_leave_nothing(
    zoo_of: Callable[[Architecture], Zoo], oracle_of: Callable[[Architecture], Oracle], tmp_path: Path
) -> None:
    oracle, rng = oracle_of("qwen3"), random.Random(10)
    prompts = [random_ids(rng, length) for length in (1, 30, 90) * 4]
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(client: Client, number: int) -> int:
        module, prompt = MODULES[number % 2], prompts[number % len(prompts)]
        body = {"model": module, "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0, "return_token_ids": True}
        async with turns, asyncio.timeout(BOUND_S):
            status, answer = await client.post("/v1/completions", body)
        if status == 200:
            assert answer["choices"][0]["token_ids"] == oracle.answer(module, prompt, MAX_TOKENS).tokens
        else:
            assert set(answer["error"]) == ERROR_FIELDS
        return status

    config = tmp_path / "fleet.toml"
    config.write_text(NO_BREAKER)
    with launched(zoo_of("qwen3").path, "--config", str(config), "--modules", "alpha,beta", env=ENV) as fleet:
        before = pids(fleet)
        async with client_of(fleet.url) as client:
            statuses = Counter(await asyncio.gather(*(ask(client, number) for number in range(CASES))))
        assert set(statuses) == {200, 502}
        wait_idle(fleet)
        assert pids(fleet) == before
