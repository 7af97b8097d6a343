"""Asking a running fleet where its prompts were computed."""

from __future__ import annotations

from dataclasses import dataclass

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.fleet import RunningFleet


@dataclass(frozen=True)
class Placed:
    """Where one prompt was computed, and how much of it was there."""

    prefill: str
    cached: int


def place(fleet: RunningFleet, module: str, prompt: list[int]) -> Placed:
    body = {"model": module, "prompt": prompt, "max_tokens": 2}
    answer = requests.post(fleet.url + "/v1/completions", json=body, timeout=120)
    answer.raise_for_status()
    cached = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return Placed(answer.headers["x-psserve-prefill-worker"], cached)


def decisions(fleet: RunningFleet, outcome: str) -> float:
    """How often a prefill server was chosen for this reason."""
    text = requests.get(fleet.url + "/metrics", timeout=30).text
    wanted = {"role": "prefill", "outcome": outcome}.items()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "psserve_routing_decisions_total" and wanted <= sample.labels.items()
    )


def flush(fleet: RunningFleet, server: str) -> None:
    """Empty a server's radix cache behind the router's back."""
    answer = requests.post(fleet.worker_url(server) + "/flush_cache", headers=fleet.auth, timeout=60)
    answer.raise_for_status()
