"""Fleets whose objects are kept in golden/. `python -m tests.fleet.manifests.cases` writes them anew, to be read."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from psserve.demo.shipped import write_demo_zoo
from psserve.engine.settings import WORKER_KEY
from psserve.fleet.manifests.cluster import Cluster
from psserve.fleet.manifests.make import as_yaml, make_manifests
from psserve.fleet.options.config_file import Flags, overlaid, validated
from psserve.fleet.options.key_file import ClientKeys
from psserve.zoo import Zoo

GOLDEN = Path(__file__).with_name("golden")
IMAGE = "psserve:test"
DEMO = {"modules": ["code", "math", "tools"]}
MATH = {"modules": ["math"]}
ADAPTERS = ("kind", "terse")
TWO = {"prefill": {"tp": 2}, "decode": {"tp": 2}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "demo": (DEMO, {}),
    "tp": (MATH | TWO, {"gpu_gib": 80.0}),
    "shared-gpu": (MATH, {"gpu_gib": 80.0, "gpus": 1}),
    "keda": (MATH, {"max_replicas": 4, "service_monitor": True}),
    "adapters": (
        {"modules": ["math", *ADAPTERS], "adapters": {"replicas": 2}, "router": {"replicas": 2}},
        {"max_replicas": 4},
    ),
    "lws": (MATH | TWO, {"gpu_gib": 80.0, "gpus_per_node": 1, "lws": True, "max_replicas": 2}),
}
"""Name -> content of fleet.toml, what is said of the cluster. Beside `demo`'s, only what is not as there is kept."""
TOLD = ("StatefulSet", "LeaderWorkerSet", "ScaledObject", "ServiceMonitor")


def write_zoo(path: Path) -> None:
    """The demo zoo, and two modules that are LoRA adapters of its base."""
    write_demo_zoo(path)
    zoo = Zoo.open(path)
    shape = json.loads((zoo.base.path / "config.json").read_text())
    for name in ADAPTERS:
        adapter = path.with_name(name)
        adapter.mkdir()
        settings = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": 2,
            "lora_alpha": 4,
            "target_modules": ["o_proj"],
        }
        (adapter / "adapter_config.json").write_text(json.dumps(settings))
        heads = shape["num_attention_heads"] * (
            shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"]
        )
        save_file(
            {
                f"base_model.model.model.layers.{layer}.self_attn.o_proj.lora_{side}.weight": np.ones(size, np.float32)
                for layer in range(shape["num_hidden_layers"])
                for side, size in (("A", (2, heads)), ("B", (shape["hidden_size"], 2)))
            },
            adapter / "adapter_model.safetensors",
        )
        zoo.add(name, adapter, allow_naive=True, store="adapter")


def objects_of(
    zoo: Path, document: dict[str, Any], about: dict[str, Any], keys: ClientKeys | None = None
) -> list[dict[str, Any]]:
    """The objects of a fleet of the zoo at `zoo`."""
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
        write_zoo(Path(folder, "zoo"))
        for name in CASES:
            (GOLDEN / f"{name}.yaml").write_text(text_of(Path(folder, "zoo"), name))
