"""A fleet over two nodes of a Ray cluster: live changes, a head that is started again, nodes that are lost.

Some minutes: `pytest tests/e2e/test_ray_nodes.py`. What is asked of each test under load is that no request fails.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from psserve.errors import FleetError
from psserve.fleet.observe.control import change_fleet
from psserve.fleet.options.config_file import validated
from psserve.fleet.ray.starter import CLAIM_S
from psserve.fleet.ray.survey import surveyed
from psserve.fleet.run.protocol import ChangeCommand, ChangeRequest
from psserve.zoo import Zoo
from psserve.zoo.synthetic.zoo import build_zoo
from tests.e2e.client import random_ids
from tests.e2e.fleet import RunningFleet, launched
from tests.e2e.oracle import Oracle
from tests.e2e.over_ray import (
    agent_of,
    bridge_of,
    check_exact,
    check_restarts,
    fleet_toml,
    pid_of,
    places,
    processes_of,
    served_meanwhile,
    state_of,
)
from tests.e2e.watching import ask, await_whole, check_answer
from tests.ray_cluster import DOMAIN, HEAD, NODE, OTHER, RayCluster, ray_cluster
from tests.waiting import PATIENCE_S, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.long,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: psserve[ray]"),
]

PLACES = {"prefill-0": NODE, "decode-beta-0": NODE, "decode-alpha-0": OTHER}
"""As labels have it, so that alpha must wait where it is. gamma, which comes later, may be anywhere."""
MODULES = ("alpha", "beta")
GAMMA = "decode-gamma-0-v2"
MOVED_WITHIN_S = 300
"""A minute that a node may be away, and a start on a busy machine."""


@dataclass(frozen=True)
class Made:
    """A zoo of alpha, beta and gamma, and what shall become of gamma."""

    zoo: Zoo
    next: Path
    oracle: Oracle
    """Knows `next`, too."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("nodes")
    zoo = build_zoo(folder / "zoo", "qwen3", modules=(*MODULES, "gamma", "next"))
    oracle = Oracle(zoo)
    shutil.copytree(zoo.base.path, folder / "next")
    for file in zoo.module("next").path.glob("*.safetensors*"):
        shutil.copy(file, folder / "next")
    zoo.remove("next")
    return Made(zoo, folder / "next", oracle)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(NODE, OTHER) as running:
        yield running


@pytest.fixture(scope="module")
def fleet(made: Made, cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    labels = {"prefill": NODE, "module.beta": NODE, "module.alpha": OTHER}
    config = fleet_toml(tmp_path_factory.mktemp("ray"), cluster, MODULES, labels=labels)
    with launched(made.zoo.path, "--config", str(config)) as running:
        yield running


def pids(fleet: RunningFleet, *servers: str) -> list[int | None]:
    return [pid_of(fleet, server) for server in servers]


def change(fleet: RunningFleet, command: ChangeCommand) -> None:
    """Have gamma added, replaced or removed, and wait for it."""
    change_fleet(fleet.zoo, ChangeRequest(command=command, module="gamma"), print)


def check_next(fleet: RunningFleet, made: Made, seed: int) -> None:
    """gamma answers as its new weights do."""
    prompt = random_ids(random.Random(seed), 40)
    check_answer(ask(fleet, "gamma", prompt), made.oracle, "next", prompt)


def test_answers_over_two_nodes_are_exact(fleet: RunningFleet, made: Made) -> None:
    assert places(fleet) == PLACES | {"router": "local"}
    check_exact(fleet, made.oracle, MODULES, 1)


async def test_a_module_is_added_and_replaced_under_load(fleet: RunningFleet, made: Made) -> None:
    before = pids(fleet, *PLACES)
    assert await served_meanwhile(fleet, MODULES, lambda: change(fleet, "add")) == {200}
    assert places(fleet)["decode-gamma-0"] == OTHER
    check_exact(fleet, made.oracle, (*MODULES, "gamma"), 2)
    made.zoo.add("gamma", made.next, allow_naive=True, replace=True)
    assert await served_meanwhile(fleet, (*MODULES, "gamma"), lambda: change(fleet, "update")) == {200}
    assert places(fleet) == PLACES | {GAMMA: OTHER, "router": "local"}
    check_next(fleet, made, 3)
    assert pids(fleet, *PLACES) == before


async def test_a_head_that_is_killed_and_started_again_takes_nothing_with_it(
    fleet: RunningFleet, made: Made, cluster: RayCluster
) -> None:
    """The bridge ends too, as it does on the head's machine."""
    before, bridge = pids(fleet, *PLACES), bridge_of(fleet)
    assert bridge is not None

    def restart_head() -> None:
        cluster.kill(HEAD)
        bridge.kill()
        until(lambda: bridge_of(fleet) not in (None, bridge))  # it finds no head, and is one of several
        cluster.start_head()

    assert await served_meanwhile(fleet, MODULES, restart_head) == {200}
    check_restarts(fleet, GAMMA)
    assert pids(fleet, *PLACES) == before
    check_exact(fleet, made.oracle, MODULES, 4)


def test_a_fleet_can_be_kept_in_one_domain(fleet: RunningFleet, made: Made, cluster: RayCluster) -> None:
    """Both nodes have the label, with other values: of equal domains, it is the one whose name comes first."""

    def hosts(label: str) -> set[str]:
        table = {"kind": "ray", "address": cluster.address, "private_network": True}
        options = validated({"device": "cpu", "cluster": {**table, "topology_strategy": {label: "STRICT_PACK"}}})
        with surveyed(made.zoo, options, keep=False) as found:
            return {host.name for host in found.hosts}

    before = pids(fleet, *PLACES)
    assert hosts(DOMAIN) == {NODE}
    with pytest.raises(FleetError, match=r"no machine of the Ray cluster has the label rack: ray start --labels rack="):
        hosts("rack")
    assert pids(fleet, *PLACES) == before


async def test_a_node_that_gives_no_answer_for_a_while_serves_on(fleet: RunningFleet) -> None:
    """Its agent is frozen, as by a machine that has much to do, until the supervisor takes the node for lost."""
    before, agent = pids(fleet, *PLACES), agent_of(fleet, "decode-beta-0")

    def states() -> set[str]:
        return {one["state"] for one in state_of(fleet) if one["host"] == NODE}

    def freeze() -> None:
        agent.suspend()
        try:
            until(lambda: states() == {"lost"})
        finally:
            agent.resume()
        until(lambda: states() == {"ready"})
        time.sleep(CLAIM_S)

    assert await served_meanwhile(fleet, MODULES, freeze) == {200}
    assert states() == {"ready"}
    assert pids(fleet, *PLACES) == before
    check_restarts(fleet, "decode-beta-0")


async def test_a_node_that_dies_leaves_no_orphan_and_its_servers_move_or_wait_for_it(
    fleet: RunningFleet, made: Made, cluster: RayCluster
) -> None:
    stay = pids(fleet, "prefill-0", "decode-beta-0")
    left = processes_of(fleet, "decode-alpha-0", GAMMA)

    def states() -> set[str]:
        return {one["state"] for one in state_of(fleet) if one["host"] == OTHER}

    def lose() -> None:
        cluster.kill(OTHER)
        assert not psutil.wait_procs(left, timeout=PATIENCE_S)[1]
        until(lambda: states() == {"lost"})
        until(lambda: places(fleet)[GAMMA] == NODE, MOVED_WITHIN_S)

    def come_back() -> None:
        assert states() == {"lost"}
        cluster.start_node(OTHER)
        until(lambda: pid_of(fleet, "decode-alpha-0") is not None, MOVED_WITHIN_S)

    assert await served_meanwhile(fleet, ["beta"], lose) == {200}
    assert await served_meanwhile(fleet, ["beta"], come_back) == {200}
    await_whole(fleet)
    assert places(fleet) == PLACES | {GAMMA: NODE, "router": "local"}
    assert {one["restarts"] for one in state_of(fleet) if one["name"] == "decode-alpha-0"} == {0}
    assert pids(fleet, "prefill-0", "decode-beta-0") == stay
    check_exact(fleet, made.oracle, MODULES, 5)
    check_next(fleet, made, 6)


async def test_a_module_that_has_moved_is_removed_under_load(fleet: RunningFleet, made: Made) -> None:
    before = pids(fleet, *PLACES)
    assert await served_meanwhile(fleet, MODULES, lambda: change(fleet, "remove")) == {200}
    assert places(fleet) == PLACES | {"router": "local"}
    assert pids(fleet, *PLACES) == before
    check_exact(fleet, made.oracle, MODULES, 7)
