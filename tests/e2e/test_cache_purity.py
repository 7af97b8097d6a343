"""A radix tree holds the base's KV and nothing else, whatever load it has seen."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import psutil
import pytest
import torch

from psserve.training.reference import prefill_kv
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e import tree_dump
from tests.e2e.client import agent_sessions, client_of, random_ids
from tests.e2e.fleet import RunningFleet, counter, direct_pair, launched, wait_idle
from tests.e2e.oracle import Oracle
from tests.e2e.transfer import IS_SHARED, copies_alone
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.e2e

TOLERANCE = 1e-4
WITHIN_S = 600
"""Only bounds a test that hangs."""


class TreePath(NamedTuple):
    """One root-to-leaf path; keys and values are [layers, tokens, kv heads, head dim]."""

    tokens: list[int]
    keys: torch.Tensor
    values: torch.Tensor


@contextmanager
def watched(zoo: Path, env: Mapping[str, str]) -> Iterator[RunningFleet]:
    """A fleet of one module whose servers show their trees on request, and so have trees of Python."""
    arguments = ("--modules", "alpha", "--page-size", "1")
    shown = {tree_dump.ASKED_BY: "1", "SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND": "python"}
    with launched(zoo, *arguments, env={**shown, **env}) as fleet:
        yield fleet


def tree(fleet: RunningFleet, server: str) -> list[TreePath]:
    wait_idle(fleet)
    folder = fleet.tmp_dir
    target = folder / f"tree-{fleet.worker(server)['port']}.pt"
    (folder / "dump-please").touch()
    deadline = time.monotonic() + PATIENCE_S
    while not target.exists():
        assert time.monotonic() < deadline, "no server showed its tree"
        time.sleep(0.1)
    return [TreePath(*path) for path in torch.load(target)]


def impurity(path: TreePath, oracle: Oracle) -> float:
    """The largest difference between what the tree holds for a path and what the base computes for its tokens."""
    layers = prefill_kv(oracle.base, path.tokens)
    keys, values = (torch.stack([layer[kind] for layer in layers]) for kind in (0, 1))
    return max(float((keys - path.keys).abs().max()), float((values - path.values).abs().max()))


async def mixed_load(fleet: RunningFleet, oracle: Oracle, retracts: bool) -> None:
    """Sessions; where a server `retracts`, until it did: on a busy machine requests may be answered one by one."""
    async with asyncio.timeout(WITHIN_S), client_of(fleet.url) as client:
        for seed in itertools.count(step=100):
            await agent_sessions(client, oracle, ["alpha"], sessions=6, turns=4, max_tokens=30, seed=seed)
            if not retracts or retracted(fleet):
                return


def retracted(fleet: RunningFleet) -> float:
    return counter(fleet, "decode-alpha-0", "sglang:num_retracted_requests_total")


@pytest.mark.parametrize("env", [{}, {"SGLANG_TEST_RETRACT": "true"}], ids=["plain", "retracting"])
async def test_trees_hold_only_the_bases_kv(
    env: dict[str, str],
    zoo_of: Callable[[Architecture], Zoo],
    oracle_of: Callable[[Architecture], Oracle],
) -> None:
    oracle = oracle_of("qwen3")
    with watched(zoo_of("qwen3").path, env) as fleet:
        await mixed_load(fleet, oracle, retracts=bool(env))
        assert (retracted(fleet) > 0) == bool(env)
        if IS_SHARED:  # what is lent stays as it is: each server looks (psserve/engine/onepool/unchanged.py)
            assert tree(fleet, "decode-alpha-0") == []
        for server in ("prefill-0",) if IS_SHARED else ("decode-alpha-0", "prefill-0"):
            paths = tree(fleet, server)
            assert sum(len(path.tokens) for path in paths) > 500
            assert max(impurity(path, oracle) for path in paths) < TOLERANCE


@copies_alone("decode servers keep nothing; what can go wrong: test_negative_controls, test_without_leases")
async def test_kept_generated_kv_is_found_and_gives_wrong_second_turns(
    zoo_of: Callable[[Architecture], Zoo],
    oracle_of: Callable[[Architecture], Oracle],
) -> None:
    oracle, rng = oracle_of("qwen3"), random.Random(2)
    env = {"PSSERVE_NEGATIVE_CONTROL": "keep-generated-kv", "PSSERVE_CHECK_PURITY": "0"}
    with watched(zoo_of("qwen3").path, env) as fleet:
        async with client_of(fleet.url) as client:
            await asyncio.gather(*(client.complete("alpha", [100 + i, 50, 60], 20) for i in range(4)))
            assert max(impurity(path, oracle) for path in tree(fleet, "decode-alpha-0")) > 0.01
            wrong = 0
            for _ in range(6):
                prompt = random_ids(rng, 40)
                answer = await client.check(oracle, "alpha", prompt, 24)  # a first turn is right all the same
                second = prompt + answer + random_ids(rng, 5)
                served = (await client.complete("alpha", second, 8))["choices"][0]["logprobs"]
                expected = oracle.answer("alpha", second, 8)
                wrong += served["token_logprobs"] != pytest.approx(expected.logprobs, abs=1e-4)
    assert wrong >= 5


@copies_alone("decode servers keep nothing; what can go wrong: test_negative_controls, test_without_leases")
async def test_a_server_that_keeps_generated_kv_ends_and_says_why(zoo_of: Callable[[Architecture], Zoo]) -> None:
    env = {"PSSERVE_NEGATIVE_CONTROL": "keep-generated-kv"}
    with launched(zoo_of("qwen3").path, "--modules", "alpha", "--page-size", "16", env=env) as fleet:
        server = psutil.Process(fleet.pid("decode-alpha-0"))
        with contextlib.suppress(aiohttp.ClientError):  # the server may end before the answer is out
            await direct_pair(fleet, "alpha", list(range(100, 140)), 20)  # 59 tokens have KV, the base's are 39
        until(lambda: "ImpureTree: the radix tree of an idle server" in fleet.log("decode-alpha-0"))
        assert ": 9 slots hold KV that did not come from the base: [" in fleet.log("decode-alpha-0")
        until(lambda: not server.is_running())
        assert "ImpureTree" not in fleet.log("prefill-0")
