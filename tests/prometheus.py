"""What Prometheus answers to the queries that KEDA is told, from a fleet's page and the labels of where it is from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Object = Mapping[str, Any]
_SUM = re.compile(r"sum\((\w+)\{([^{}]*)\}\)")
_MATCHER = re.compile(r'(\w+)="([^"]*)"')


def queries(objects: Sequence[Object]) -> list[str]:
    """What KEDA asks, in the objects' order."""
    scaled = (one for one in objects if one["kind"] == "ScaledObject")
    return [trigger["metadata"]["query"] for one in scaled for trigger in one["spec"]["triggers"]]


def target_labels(objects: Sequence[Object]) -> dict[str, str]:
    """What the Prometheus operator adds to the samples of the one Service that the objects' ServiceMonitor finds."""
    (monitor,) = (one for one in objects if one["kind"] == "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = (one["metadata"] for one in objects if one["kind"] == "Service")
    (found,) = (one for one in services if wanted <= one["labels"].items())
    assert found["namespace"] == monitor["metadata"]["namespace"]  # it looks nowhere else
    return {"namespace": found["namespace"], "service": found["name"]}


def answer(query: str, *scraped: tuple[str, Mapping[str, str]]) -> float:
    """The sum that is asked for, of pages and the labels of their targets. Fails where it is of nothing."""
    parts = _SUM.fullmatch(query)
    assert parts is not None, query
    wanted = dict(_MATCHER.findall(parts[2]))
    assert ",".join(f'{name}="{text}"' for name, text in wanted.items()) == parts[2]
    found = [
        sample.value
        for page, target in scraped
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == parts[1] and wanted.items() <= {**sample.labels, **target}.items()
    ]
    assert found, query
    return sum(found)
