"""What `psserve manifests` prints, run: the pods' commands serve the demo zoo, and pods end as Kubernetes ends them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from psserve.demo.shipped import write_demo_zoo
from psserve.demo.tasks import held_out_items
from psserve.fleet.manifests import pods as planned
from psserve.fleet.options.key_file import ClientKeys
from psserve.fleet.plan.spec import ServerSpec
from psserve.zoo import Zoo
from tests.e2e.client import Client, client_of
from tests.e2e.fleet import one_start_at_a_time
from tests.e2e.oracle import Oracle
from tests.e2e.pods import Node, running
from tests.fleet.manifests.cases import objects_of

pytestmark = [pytest.mark.e2e, pytest.mark.long]

KEY = "for-clients"
ROUTER_PORT = 30000
ROUTERS = ("psserve-0", "psserve-1")
START_S = 600
"""Patience: pods import SGLang in three processes a server, all at once."""
ANSWERS = 20
TOKENS = 16


def one_pod_for_two(servers: Sequence[ServerSpec]) -> list[list[ServerSpec]]:
    """As where the prefill server and that of `math` share a GPU, and `code` has its own."""
    prefill, code, math = servers
    assert (prefill.module, code.module, math.module) == (None, "code", "math")
    return [[prefill, math], [code]]


def decode_over_two_nodes(cluster: object, part: str, gpus: int, servers: int) -> int:
    """As where a node has one GPU, for decode servers, and two for prefill servers."""
    return 2 if part.startswith("decode") else 1


@dataclass(frozen=True)
class Case:
    """A fleet as it is planned where it has GPUs, but with a CPU's arguments for its servers."""

    document: Mapping[str, Any]
    changed: tuple[str, Any]
    """What decides over pods where there are GPUs, and what it would say."""
    servers: set[str]
    """Those that run. The routers know more, which KEDA may start."""
    pods: tuple[str, ...]
    leaves: str
    """One of them, the only one of its module."""

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(self.document["modules"])


CASES = {
    "shared": Case(
        {"modules": ["code", "math"], "router": {"replicas": 2}},
        ("_sharing", one_pod_for_two),
        {"prefill-0", "decode-code-0", "decode-math-0"},
        ("psserve-shared-0-0", "psserve-decode-code-0"),
        "psserve-decode-code-0",
    ),
    "lws": Case(
        {
            "modules": ["math"],
            "router": {"replicas": 2},
            "prefill": {"tp": 2, "kv_tokens": 8192},
            "decode": {"tp": 2, "kv_tokens": 8192},
        },
        ("_nodes", decode_over_two_nodes),
        {"prefill-0", "decode-math-0"},
        ("psserve-prefill-0", "psserve-decode-math-0", "psserve-decode-math-0-1"),
        "psserve-decode-math-0",
    ),
}
SERVED = ["shared", "lws"]


@dataclass(frozen=True)
class Cluster:
    """Running pods, and a URL of each router."""

    case: Case
    node: Node
    urls: Sequence[str]

    def await_ready(self) -> None:
        """Wait until every router has had an answer of every server that there is. Fails when a pod ends."""
        deadline = time.monotonic() + START_S
        while not all(self.case.servers <= _ready(url) for url in self.urls):
            assert not self.node.ended(), self.node.said()
            assert time.monotonic() < deadline, self.node.said()
            time.sleep(0.2)


def _ready(url: str) -> set[str]:
    """The servers that take requests, as this router knows them."""
    try:
        answer = requests.get(f"{url}/workers", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
    except requests.ConnectionError:  # it does not listen yet
        return set()
    return {worker["name"] for worker in answer.json()["workers"] if worker["state"] == "ready"}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    path = tmp_path_factory.mktemp("pods") / "zoo"
    write_demo_zoo(path)
    return Zoo.open(path)


@pytest.fixture(scope="module")
def oracle(zoo: Zoo) -> Oracle:
    return Oracle(zoo)


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    case = CASES[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned, *case.changed)
        objects = objects_of(zoo.path, dict(case.document), {"max_replicas": 2}, ClientKeys(plain=KEY))
    with ExitStack() as ends:
        with one_start_at_a_time():
            node = ends.enter_context(running(objects, zoo.path, tmp_path_factory.mktemp("node")))
            urls = [ends.enter_context(node.net.door(ROUTER_PORT, node.address(name))) for name in ROUTERS]
            cluster = Cluster(case, node, urls)
            cluster.await_ready()
        yield cluster


@pytest.mark.parametrize("cluster", SERVED, indirect=True)
def test_the_pods_are_those_of_the_objects(cluster: Cluster) -> None:
    assert sorted(cluster.node.pods) == sorted([*cluster.case.pods, *ROUTERS])


@pytest.mark.parametrize("cluster", SERVED, indirect=True)
async def test_answers_of_either_router_are_the_references(cluster: Cluster, oracle: Oracle) -> None:
    each = ANSWERS // len(cluster.case.modules)
    asked = [
        (module, oracle.chat_prompt(list(item.prompt)))
        for module in cluster.case.modules
        for item in held_out_items(module, each)
    ]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(url, KEY)) for url in cluster.urls]
        checks = (
            client.check(oracle, module, prompt, TOKENS)
            for client, (module, prompt) in zip(itertools.cycle(clients), asked, strict=False)
        )
        assert len(await asyncio.gather(*checks)) == ANSWERS


@pytest.mark.parametrize("cluster", SERVED, indirect=True)
async def test_a_pod_leaves_both_routers_and_finishes_what_it_has(cluster: Cluster, oracle: Oracle) -> None:
    """It ends while requests come and go: its command before the end, then SIGTERM, as Kubernetes does it. No answer is
    lost or wrong; then its module has no server, and the others go on."""
    module, *others = cluster.case.modules
    prompts = {name: oracle.chat_prompt(list(held_out_items(name, 1, seed=3)[0].prompt)) for name in (module, *others)}
    expected = oracle.answer(module, prompts[module], TOKENS)
    body = {"model": module, "prompt": prompts[module], "max_tokens": TOKENS, "temperature": 0, "logprobs": 1}

    async def ask_until_it_is_gone(client: Client) -> None:
        while True:
            status, answer = await client.post("/v1/completions", body | {"return_token_ids": True})
            if status != 200:
                assert (status, answer["error"]["code"]) == (503, "module_unavailable"), answer
                return
            oracle.check_choice(expected, answer["choices"][0])

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(url, KEY)) for url in cluster.urls]
        for client in clients:
            await client.check(oracle, module, prompts[module], TOKENS)
        asking = [asyncio.create_task(ask_until_it_is_gone(client)) for client in clients * 2]
        before, _ = await asyncio.to_thread(cluster.node.end, cluster.case.leaves)
        await asyncio.gather(*asking)
        assert before == 0
        for client, other in itertools.product(clients, others):
            await client.check(oracle, other, prompts[other], TOKENS)


@pytest.mark.parametrize("cluster", ["shared"], indirect=True)
def test_a_pod_of_several_servers_ends_them_all(cluster: Cluster) -> None:
    """The last test here."""
    name = "psserve-shared-0-0"
    assert "psserve.fleet.manifests.group" in cluster.node.pods[name].main["command"]
    assert cluster.node.end(name) == (0, 0), cluster.node.said()
