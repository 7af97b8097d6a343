"""The exactness checks can fail: with psserve's hooks off, or with pages not lent, they do.

And with generated KV kept: tests/e2e/test_cache_purity.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from psserve.engine.versions import ONE_POOL, installed_sglang
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.client import client_of, random_ids
from tests.e2e.fleet import direct_pair, launched
from tests.e2e.one_pool import ARGUMENTS, CONFIG, PROMPT, flood, reference, stopped_in_an_answer
from tests.e2e.oracle import Oracle
from tests.waiting import until

pytestmark = pytest.mark.e2e

UNCHECKED = {"PSSERVE_CHECK_PURITY": "0"}  # or the servers would end before an answer can be wrong


async def test_without_hooks_no_answer_is_right_and_the_fleet_is_never_ready(
    zoo_of: Callable[[Architecture], Zoo], oracle_of: Callable[[Architecture], Oracle]
) -> None:
    oracle, rng = oracle_of("qwen3"), random.Random(1)
    env = {"PSSERVE_NEGATIVE_CONTROL": "no-hooks", **UNCHECKED}
    with launched(zoo_of("qwen3").path, "--modules", "alpha", env=env, wait_ready=False) as fleet:
        wrong = 0
        for _ in range(8):
            prompt = random_ids(rng, 40)
            answer, expected = await direct_pair(fleet, "alpha", prompt, 8), oracle.answer("alpha", prompt, 8)
            wrong += answer.tokens != expected.tokens or answer.logprobs != pytest.approx(expected.logprobs, abs=1e-4)
        assert wrong == 8
        async with client_of(fleet.url) as client:
            assert (await client.get("/readiness"))[0] == 503
            workers = (await client.get("/workers"))[1]["workers"]
        assert any("prompt" in str(worker["error"]) for worker in workers), workers


@pytest.mark.skipif(installed_sglang() not in ONE_POOL, reason="one KV pool: not with this release of SGLang yet")
def test_without_leases_an_answer_is_another(
    zoo_of: Callable[[Architecture], Zoo], oracle_of: Callable[[Architecture], Oracle], tmp_path: Path
) -> None:
    """With one KV pool: `test_lent_pages_do_not_change_while_others_fill_the_pool` can fail, and a lender notices."""
    config, prompt = tmp_path / "fleet.toml", random_ids(random.Random(3), PROMPT)
    config.write_text(CONFIG)
    arguments = ("--modules", "alpha,beta", "--config", str(config), *ARGUMENTS)
    with launched(zoo_of("qwen3").path, *arguments, env={"PSSERVE_NEGATIVE_CONTROL": "no-lease"}) as fleet:
        with stopped_in_an_answer(fleet, prompt) as answer:
            flood(fleet)
        assert answer.whole() != reference(oracle_of("qwen3"), "alpha", prompt)
        until(lambda: "ChangedLease: pages [" in fleet.log("prefill-0"))
