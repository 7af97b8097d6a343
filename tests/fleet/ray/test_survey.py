"""What keeps a fleet from running on a machine of a Ray cluster, and what is only advised."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from psserve.fleet.plan.devices import Machine
from psserve.fleet.ray.messages import Event, HostFacts
from psserve.fleet.ray.survey import _checked, advice, faults
from psserve.versions import versions

GOOD = {
    "RAY_AUTH_MODE": "token",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}


def facts(**fields: Any) -> HostFacts:
    said = versions()
    known = {
        "name": "10.0.0.1",
        "machine": Machine(2, 2**34, 2**34, ()),
        "python": sys.executable,
        "environ": {},
        "tmp": "/tmp",
        "versions": (f"psserve {said['psserve']}", f"SGLang {said['sglang']}"),
        "user": os.getuid(),
        "settings": GOOD,
    }
    return HostFacts(**known | fields)


def without(setting: str, value: str | None = None) -> HostFacts:
    others = {name: text for name, text in GOOD.items() if name != setting}
    return facts(settings=others if value is None else others | {setting: value})


def test_a_machine_as_it_should_be_has_no_fault() -> None:
    assert list(faults(facts())) == []


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (facts(wrong="it has no interface eth7"), "it has no interface eth7"),
        (
            facts(versions=("psserve 0.0.1", "SGLang 0.5.23")),
            "it has psserve 0.0.1 and SGLang 0.5.23, and this machine",
        ),
        (facts(python="/elsewhere/python"), "Ray runs /elsewhere/python there, and psserve "),
        (facts(user=os.getuid() + 1), "Ray runs there as user"),
        (without("RAY_AUTH_MODE"), "set RAY_AUTH_MODE=token"),
        (without("RAY_AUTH_MODE", "disabled"), "set RAY_AUTH_MODE=token"),
        (without("RAY_memory_monitor_refresh_ms"), "set RAY_memory_monitor_refresh_ms=0"),
        (without("RAY_memory_monitor_refresh_ms", "250"), "set RAY_memory_monitor_refresh_ms=0"),
    ],
)
def test_every_fault_is_told_with_what_to_do(host: HostFacts, said: str) -> None:
    (found,) = faults(host)
    assert said in found


def test_a_plan_knows_what_a_machine_says_of_its_ports_and_folder() -> None:
    unused: Any = None
    said = facts(taken_ports={4000}, tmp="/scratch")
    (host,) = _checked(Event(hosts=(said,)), unused, unused, is_shared=False)
    assert (host.name, host.taken_ports, host.tmp) == ("10.0.0.1", {4000}, Path("/scratch"))


def test_a_cluster_that_outlives_its_head_needs_no_advice() -> None:
    assert list(advice(Event(hosts=(facts(),), head={"RAY_gcs_storage": "rocksdb"}))) == []


def test_what_ends_with_the_head_is_told() -> None:
    impatient = without("RAY_gcs_rpc_server_reconnect_timeout_s", "60")
    waits, forgets = advice(Event(hosts=(facts(), impatient)))
    assert waits.endswith("set RAY_gcs_rpc_server_reconnect_timeout_s=600 for ray start")
    assert "RAY_gcs_storage=rocksdb" in forgets


def test_servers_on_the_head_are_told() -> None:
    (said,) = advice(Event(hosts=(facts(),), head={"RAY_gcs_storage": "rocksdb"}, head_host="10.0.0.1"))
    assert said.startswith("servers on 10.0.0.1 end with Ray's head, which is there: ")
    assert said.endswith("--num-cpus 0 --num-gpus 0 for its ray start")
