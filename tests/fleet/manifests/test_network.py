"""A pod without the interface that KV goes through starts no server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from psserve.contracts.programs import program
from psserve.fleet.manifests.network import require_nics
from tests.fleet.manifests.cases import CASES, objects_of


def test_an_interface_that_is_not_there_is_named() -> None:
    done = subprocess.run(program("psserve.fleet.manifests.network", "lo,none7"), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("--nic: no interface none7 here: there are ")
    assert "lo" in done.stderr.strip().partition("there are ")[2].split(", ")


@pytest.mark.parametrize("nics", ["lo", "all"])
def test_one_that_is_there_is_taken(nics: str) -> None:
    require_nics(nics)


def test_every_server_pod_looks_before_all_else(zoo: Path) -> None:
    document, about = CASES["lws"]
    sets = [one for one in objects_of(zoo, document, {**about, "nic": "net1"}) if one["kind"] == "LeaderWorkerSet"]
    for group in (one["spec"]["leaderWorkerTemplate"] for one in sets):
        for template in ("leaderTemplate", "workerTemplate"):
            first, *_ = group[template]["spec"]["initContainers"]
            assert first["command"] == list(program("psserve.fleet.manifests.network", "net1", python="python"))
