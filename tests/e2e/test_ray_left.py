"""What a killed supervisor leaves on the nodes of a Ray cluster, and what they are sent.

Some minutes: `pytest tests/e2e/test_ray_left.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import requests

from psserve.fleet.ray.store import digest_of
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.fleet import READY_WITHIN_S, RunningFleet, launched, one_start_at_a_time, router_config
from tests.e2e.forked_launch import launching
from tests.e2e.oracle import Oracle
from tests.e2e.over_ray import check_exact, fleet_toml, places, processes_of
from tests.e2e.transfer import with_transfer
from tests.ray_cluster import NODE, OTHER, RayCluster, ray_cluster
from tests.waiting import PATIENCE_S

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.long,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: psserve[ray]"),
]

MODULES = ("alpha", "beta")
SERVERS = ("prefill-0", "decode-alpha-0", "decode-beta-0")
LEASE_S = 40.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(NODE, OTHER) as made:
        yield made


@pytest.fixture
def zoo(zoo_of: Callable[[Architecture], Zoo]) -> Zoo:
    return zoo_of("qwen3")


@pytest.fixture
def oracle(oracle_of: Callable[[Architecture], Oracle]) -> Oracle:
    return oracle_of("qwen3")


@contextlib.contextmanager
def killed_at_the_end(zoo: Path, config: Path) -> Iterator[RunningFleet]:
    """A fleet that is ready, and whose supervisor is killed."""
    with contextlib.ExitStack() as ends:
        with one_start_at_a_time():
            (zoo / ".run" / "router.json").unlink(missing_ok=True)
            launch = ends.enter_context(launching(zoo, *with_transfer(("--config", str(config)))))
            found = router_config(zoo, launch)
            launch.await_ready(READY_WITHIN_S)
        yield RunningFleet(zoo, f"http://{found['host']}:{found['port']}", launch.pid, found)
        os.kill(launch.pid, signal.SIGKILL)
        launch.end(PATIENCE_S)


def sent(cluster: RayCluster) -> dict[Path, tuple[int, int]]:
    """The files that nodes were sent: each is another one if it comes again."""
    found = [
        file for node in (NODE, OTHER) for file in (cluster.cache(node) / "psserve" / "shipped" / "files").iterdir()
    ]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in found}


def test_files_are_sent_once_and_the_next_launch_ends_what_a_killed_supervisor_left(
    zoo: Zoo, cluster: RayCluster, oracle: Oracle, tmp_path: Path
) -> None:
    config = fleet_toml(tmp_path, cluster, MODULES, files="ship")
    with killed_at_the_end(zoo.path, config) as fleet:
        check_exact(fleet, oracle, MODULES, 1)
        left = processes_of(fleet, *SERVERS)
        for server in SERVERS:
            info = requests.get(f"{fleet.worker_url(server)}/model_info", headers=fleet.auth, timeout=30).json()
            assert Path(info["model_path"]).is_relative_to(cluster.cache(places(fleet)[server]))
    files = sent(cluster)
    assert all(digest_of(file) == file.name for file in files)
    assert all(process.is_running() for process in left)
    with launched(zoo.path, "--config", str(config)) as fleet:
        assert not any(process.is_running() for process in left)
        check_exact(fleet, oracle, MODULES, 2)
    assert sent(cluster) == files


def test_servers_of_a_killed_supervisor_end_after_their_lease(zoo: Zoo, cluster: RayCluster, tmp_path: Path) -> None:
    config = fleet_toml(tmp_path, cluster, MODULES[:1], lease_secs=LEASE_S)
    with killed_at_the_end(zoo.path, config) as fleet:
        left = processes_of(fleet, *SERVERS[:2])
    assert all(process.is_running() for process in left)
    assert not psutil.wait_procs(left, timeout=LEASE_S + PATIENCE_S)[1]
