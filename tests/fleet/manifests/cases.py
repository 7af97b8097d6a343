"""Fleets whose objects are kept in golden/. `python -m tests.fleet.manifests.cases` writes them anew, to be read."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from psserve.demo.shipped import write_demo_zoo
from psserve.engine.settings import WORKER_KEY
from psserve.fleet.manifests.cluster import Cluster
from psserve.fleet.manifests.make import as_yaml, make_manifests
from psserve.fleet.options.config_file import Flags, overlaid, validated
from psserve.fleet.options.key_file import ClientKeys
from psserve.zoo import Zoo

GOLDEN = Path(__file__).with_name("golden")
IMAGE = "psserve:test"
MATH = {"modules": ["math"]}
TWO = {"prefill": {"tp": 2}, "decode": {"tp": 2}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "demo": ({}, {}),
    "tp": (MATH | TWO, {"gpu_gib": 80.0}),
    "shared-gpu": (MATH, {"gpu_gib": 80.0, "gpus": 1}),
    "keda": (MATH, {"max_replicas": 4, "service_monitor": True}),
    "lws": (MATH | TWO, {"gpu_gib": 80.0, "gpus_per_node": 1, "lws": True, "max_replicas": 2}),
}
"""Name -> content of fleet.toml, what is said of the cluster. Beside `demo`'s, only what is not as there is kept."""
TOLD = ("StatefulSet", "LeaderWorkerSet", "ScaledObject", "ServiceMonitor")


def objects_of(
    zoo: Path, document: dict[str, Any], about: dict[str, Any], keys: ClientKeys | None = None
) -> list[dict[str, Any]]:
    """The objects of a fleet of the demo zoo at `zoo`."""
    options = validated(overlaid(document, Flags()))
    cluster = Cluster(image=IMAGE, **about)
    keys = keys or ClientKeys(plain="for-clients")
    return make_manifests(Zoo.open(zoo), options, cluster, keys=keys, environ={WORKER_KEY: "for-servers"})


def text_of(zoo: Path, case: str) -> str:
    """What is kept of a case."""
    objects = objects_of(zoo, *CASES[case])
    return as_yaml([one for one in objects if case == "demo" or one["kind"] in TOLD])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_demo_zoo(Path(folder, "zoo"))
        for name in CASES:
            (GOLDEN / f"{name}.yaml").write_text(text_of(Path(folder, "zoo"), name))
