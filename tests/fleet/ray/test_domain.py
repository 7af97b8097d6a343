"""Which nodes of a Ray cluster a fleet runs on."""

from __future__ import annotations

from typing import Any

from psserve.fleet.ray.domain import largest_domain, offering

LABEL = "psserve.io/nvlink"


def node(name: str, domain: str | None = None, **resources: float) -> dict[str, Any]:
    labels = {"ray.io/node-id": name} | ({} if domain is None else {LABEL: domain})
    return {"NodeManagerAddress": name, "Resources": resources, "Labels": labels}


def names(nodes: list[Any]) -> str:
    return "".join(one["NodeManagerAddress"] for one in nodes)


HEAD = node("h")
A, B = node("a", "left", CPU=8.0), node("b", "right", CPU=4.0, GPU=4.0)
C, D = node("c", "right", CPU=2.0, GPU=4.0), node("d", CPU=64.0)


def test_machines_with_gpus_get_the_servers_if_those_are_wanted() -> None:
    assert names(offering([HEAD, A, B, C, D], on_gpus=True)) == "bc"
    assert names(offering([HEAD, A, B, C, D], on_gpus=False)) == "abcd"
    assert names(offering([HEAD, A, D], on_gpus=True)) == "ad"
    assert names(offering([HEAD], on_gpus=True)) == ""


def test_the_domain_is_the_one_that_offers_most_of_what_is_wanted() -> None:
    assert names(largest_domain([A, B, C, D], LABEL, on_gpus=True)) == "bc"
    assert names(largest_domain([A, B, C, D], LABEL, on_gpus=False)) == "a"


def test_of_equal_domains_it_is_always_the_same_one() -> None:
    equal = [node("x", "2", CPU=1.0), node("y", "1", CPU=1.0)]
    assert names(largest_domain(equal, LABEL, on_gpus=False)) == "y"
    assert names(largest_domain(equal[::-1], LABEL, on_gpus=False)) == "y"


def test_machines_without_the_label_are_in_no_domain() -> None:
    assert largest_domain([D], LABEL, on_gpus=False) == []
