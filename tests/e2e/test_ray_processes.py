"""Processes on a real Ray cluster, without servers: what outlives the bridge and the head, and what ends with a node.

Some minutes: `pytest tests/e2e/test_ray_processes.py`.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from psserve.errors import FleetError, HostLost
from psserve.fleet.options.config_file import validated
from psserve.fleet.plan.spec import ServerSpec
from psserve.fleet.ray.starter import RayStarter
from psserve.fleet.ray.survey import Cluster, surveyed
from tests.fleet.fake_plan import plan_of
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.ray_cluster import DOMAIN, HEAD, NODE, RayCluster, ray_cluster
from tests.waiting import PATIENCE_S, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.long,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: psserve[ray]"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(NODE) as made:
        yield made


class Fleet:
    """Processes of one launch."""

    def __init__(self, folder: Path, address: str, lease_secs: float = 600.0) -> None:
        self.folder = folder
        (folder / "base").mkdir(exist_ok=True)
        self._options = validated(
            {"cluster": {"kind": "ray", "address": address, "private_network": True, "lease_secs": lease_secs}}
        )
        self.cluster = self.survey(keep=True)
        plan = plan_of(folder, {"decode-a-0": []}, [1, 2], folder / "tmp")
        plan = replace(plan, basis=replace(plan.basis, hosts=self.cluster.hosts))
        self._spec = replace(plan.servers[0], host_name=NODE)
        self.starter: RayStarter = self.cluster.starter(plan)

    def survey(self, *, keep: bool) -> Cluster:
        zoo: Any = FakeZoo(self.folder, FakeBase(self.folder / "base"))
        with surveyed(zoo, self._options, keep=keep) as found:
            return found

    def start(self, name: str = "a") -> tuple[Any, psutil.Process]:
        """A process that lives. It has no child: servers' children end with them by their own doing."""
        told = self.folder / f"{name}.pid"
        command = ("sh", "-c", f"echo $$ > {told}.new && mv {told}.new {told} && exec sleep 600")
        spec: ServerSpec = replace(self._spec, name=name, command=command, log=self.folder / f"{name}.log")
        handle = self.starter.start(spec)
        until(lambda: handle.poll() is None and told.exists())  # whoever asks keeps the bridge up
        process = psutil.Process(int(told.read_text()))
        told.unlink()
        return handle, process


def bridge() -> psutil.Process | None:
    """The one that runs."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends just now
            if "psserve.fleet.ray.bridge" in child.cmdline():
                return child
    return None


@pytest.fixture
def fleet(cluster: RayCluster, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, cluster.address)
    yield made
    made.starter.close()


def test_a_process_runs_on_the_node_and_ends_as_it_is_told(fleet: Fleet) -> None:
    handle, process = fleet.start()
    assert (handle.poll(), handle.is_lost) == (None, False)
    parent = process.parent()
    assert parent is not None
    assert parent.name() == "ray::Agent"
    handle.kill()
    until(lambda: handle.poll() == -signal.SIGKILL)
    assert not process.is_running()


def test_a_bridge_that_is_killed_takes_nothing_with_it(fleet: Fleet) -> None:
    handle, process = fleet.start()
    until(lambda: handle.poll() is None)
    before = bridge()
    assert before is not None
    before.kill()
    before.wait()
    _, other = fleet.start("b")  # by the next bridge
    assert process.is_running()
    assert (handle.poll(), handle.is_lost) == (None, False)
    process.terminate()
    until(lambda: handle.poll() == -signal.SIGTERM)
    assert other.is_running()


def test_a_head_that_is_killed_and_started_again_takes_nothing_with_it(fleet: Fleet, cluster: RayCluster) -> None:
    handle, process = fleet.start()
    cluster.kill(HEAD)
    assert (handle.poll(), handle.is_lost) == (None, False)
    cluster.start_head()
    _, other = fleet.start("b")
    assert process.is_running()
    assert (handle.poll(), handle.is_lost) == (None, False)
    handle.terminate()
    until(lambda: handle.poll() == -signal.SIGTERM)
    assert other.is_running()


def test_a_node_that_dies_leaves_no_orphan_and_serves_again_when_it_is_back(fleet: Fleet, cluster: RayCluster) -> None:
    handle, process = fleet.start()
    assert handle.poll() is None
    cluster.kill(NODE)
    process.wait(PATIENCE_S)
    until(lambda: handle.is_lost)
    with pytest.raises(HostLost, match=NODE):
        fleet.start("b")
    cluster.start_node(NODE)

    def starts() -> bool:
        with contextlib.suppress(HostLost):
            fleet.start("b")
            return True
        return False

    until(starts)
    assert handle.is_lost


def test_what_a_launch_left_ends_with_its_lease(cluster: RayCluster, tmp_path: Path) -> None:
    left = Fleet(tmp_path, cluster.address, lease_secs=5.0)
    _, process = left.start()
    left.starter._bridge.close()  # as when the supervisor is killed: nobody asks any more
    process.wait(PATIENCE_S)


def test_the_next_launch_ends_what_the_one_before_left(cluster: RayCluster, tmp_path: Path) -> None:
    left = Fleet(tmp_path, cluster.address)
    _, process = left.start()
    left.starter._bridge.close()
    fleet = Fleet(tmp_path, cluster.address)
    assert not process.is_running()
    _, other = fleet.start()
    fleet.survey(keep=False)  # `launch --dry-run` beside it
    assert other.is_running()
    fleet.starter.close()
    other.wait(PATIENCE_S)


def test_a_fleet_is_kept_in_the_domain_that_a_label_says(cluster: RayCluster, tmp_path: Path) -> None:
    def hosts(label: str) -> set[str]:
        table = {"kind": "ray", "address": cluster.address, "private_network": True}
        zoo: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
        options = validated({"cluster": {**table, "topology_strategy": {label: "STRICT_PACK"}}})
        with surveyed(zoo, options, keep=False) as found:
            return {host.name for host in found.hosts}

    (tmp_path / "base").mkdir(exist_ok=True)
    assert hosts(DOMAIN) == {NODE}
    with pytest.raises(FleetError, match=r"no machine of the Ray cluster has the label rack: ray start --labels rack="):
        hosts("rack")
