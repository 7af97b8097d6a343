"""Which nodes of a Ray cluster a fleet runs on. A node is as `ray.nodes()` has it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Node = Mapping[str, Any]


def offering(nodes: Sequence[Node], *, on_gpus: bool) -> list[Node]:
    """The nodes for servers: those with GPUs, if those are wanted and there are any, or else those with CPUs."""
    with_gpus = [node for node in nodes if on_gpus and node["Resources"].get("GPU")]
    return with_gpus or [node for node in nodes if node["Resources"].get("CPU")]


def largest_domain(nodes: Sequence[Node], label: str, *, on_gpus: bool) -> list[Node]:
    """Those of the nodes that have one value of `label` in common: the value that offers most; none if none has it.

    Ray's topology_strategy does this for placement groups, and needs to be told how many nodes there will be.
    """
    domains: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        if label in node["Labels"]:
            domains[node["Labels"][label]].append(node)

    def offers(value: str) -> tuple[float, float]:
        resources = [node["Resources"] for node in domains[value]]
        gpus = sum(its.get("GPU", 0.0) for its in resources) if on_gpus else 0.0
        return gpus, sum(its.get("CPU", 0.0) for its in resources)

    return domains[max(sorted(domains), key=offers)] if domains else []
