"""A fleet over Ray: servers are children of an agent on a node; a bridge or a head that ends takes nothing with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest

from psserve.fleet.observe.overview import survey
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.fleet import RunningFleet, launched
from tests.e2e.oracle import Oracle
from tests.e2e.over_ray import (
    bridge_of,
    check_exact,
    check_restarts,
    fleet_toml,
    pid_of,
    places,
    served_meanwhile,
    state_of,
)
from tests.e2e.watching import family
from tests.ray_cluster import NODE, RayCluster, ray_cluster
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: psserve[ray]")]

MODULES = ("alpha", "beta")
SERVERS = ("prefill-0", "decode-alpha-0", "decode-beta-0")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(NODE) as made:
        yield made


@pytest.fixture(scope="module")
def fleet(
    zoo_of: Callable[[Architecture], Zoo], cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFleet]:
    config = fleet_toml(tmp_path_factory.mktemp("ray"), cluster, MODULES)
    with launched(zoo_of("qwen3").path, "--config", str(config)) as running:
        yield running


@pytest.fixture
def oracle(oracle_of: Callable[[Architecture], Oracle]) -> Oracle:
    return oracle_of("qwen3")


def pids(fleet: RunningFleet) -> list[int | None]:
    return [pid_of(fleet, server) for server in SERVERS]


def test_answers_are_exact(fleet: RunningFleet, oracle: Oracle) -> None:
    check_exact(fleet, oracle, MODULES, 1)


def test_servers_are_on_the_node_and_the_router_is_here(fleet: RunningFleet) -> None:
    assert places(fleet) == dict.fromkeys(SERVERS, NODE) | {"router": "local"}
    assert {one["address"] for one in state_of(fleet)} == {NODE, "127.0.0.1"}
    own = {process.pid for process in family(fleet.supervisor)}
    assert None not in pids(fleet)
    assert own.isdisjoint(pids(fleet))
    assert fleet.pid("router") in own


def test_their_memory_is_known_though_their_processes_are_not(fleet: RunningFleet) -> None:
    def known() -> bool:
        found = {server.name: server.memory_bytes or 0 for server in survey(fleet.zoo).servers}
        return all(found[server] > 100_000_000 for server in SERVERS)

    until(known)


async def test_a_bridge_that_is_killed_takes_nothing_with_it(fleet: RunningFleet, oracle: Oracle) -> None:
    before, bridge = pids(fleet), bridge_of(fleet)
    assert bridge is not None

    def kill_bridge() -> None:
        bridge.kill()
        until(lambda: bridge_of(fleet) not in (None, bridge))

    assert await served_meanwhile(fleet, MODULES, kill_bridge) == {200}
    assert pids(fleet) == before
    check_restarts(fleet, "decode-alpha-0")
    check_exact(fleet, oracle, MODULES, 2)
