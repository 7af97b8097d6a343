"""A fleet over two nodes of a Ray cluster, changed under load, and left by the head for a while.

Some minutes: `pytest tests/e2e/test_ray_nodes.py`.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from psserve.fleet.observe.control import change_fleet
from psserve.fleet.run.protocol import ChangeCommand, ChangeRequest
from psserve.zoo import Zoo
from psserve.zoo.synthetic.zoo import build_zoo
from tests.e2e.client import random_ids
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
)
from tests.e2e.watching import ask, check_answer
from tests.ray_cluster import HEAD, NODE, OTHER, RayCluster, ray_cluster
from tests.waiting import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.long,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: psserve[ray]"),
]

PLACES = {"prefill-0": NODE, "decode-beta-0": NODE, "decode-alpha-0": OTHER}
"""As labels have it. gamma, which comes later, may be anywhere."""
MODULES = ("alpha", "beta")
GAMMA = "decode-gamma-0-v2"


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
    """Have gamma added or replaced, and wait for it."""
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
