"""Asking one SGLang server what it is doing at this moment.

The hit rate in `/v1/loads` is the last batch's, so that the totals of `/metrics` are read for those.
"""

from __future__ import annotations

from collections import defaultdict

from psserve.errors import FleetError
from psserve.fleet.http import HttpClient
from psserve.loads import LOADS_PATH, Load, parse_load

Totals = defaultdict[tuple[str, str], float]


def read_load(server: HttpClient, timeout_s: float) -> Load:
    """Ask an SGLang server, with the worker key. Raises FleetError if it does not answer in SGLang's form."""
    body = server.get(LOADS_PATH, timeout_s)
    try:
        return parse_load(body)
    except ValueError as error:
        raise FleetError(f"{server.url}/v1/loads answered in a form that psserve does not know") from error


def read_totals(server: HttpClient, timeout_s: float) -> Totals:
    """Samples of `/metrics`, summed: (name, its `module` label or "") -> value. Raises FleetError as `read_load`."""
    from prometheus_client.parser import text_string_to_metric_families

    totals: Totals = defaultdict(float)
    text = server.get("/metrics", timeout_s).decode(errors="replace")
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                totals[sample.name, sample.labels.get("module", "")] += sample.value
    except ValueError as error:
        raise FleetError(f"{server.url}/metrics answered in a form that psserve does not know") from error
    return totals
