"""The fleets of the exactness suite, and what they must answer."""

from __future__ import annotations

from dataclasses import dataclass

import openai

from psserve.zoo.synthetic.zoo import Architecture
from tests.e2e.fleet import RunningFleet
from tests.e2e.oracle import Oracle


@dataclass(frozen=True)
class Setting:
    architecture: Architecture
    page: int
    chunk: int
    overlap: bool
    arguments: tuple[str, ...]
    config: str = ""
    """Of fleet.toml."""


@dataclass(frozen=True)
class Served:
    """A running fleet and what it must answer."""

    fleet: RunningFleet
    oracle: Oracle
    setting: Setting

    @property
    def url(self) -> str:
        return self.fleet.url


SETTINGS = (
    Setting("qwen3", 16, 2048, True, ("--page-size", "16")),
    Setting(
        "llama",
        1,
        64,
        False,
        ("--page-size", "1", "--chunked-prefill-size", "64", "--", "--disable-overlap-schedule"),
        "prefill = {replicas = 2}\nmodule = {alpha = {replicas = 2}}\nrouter = {kv_events = true}",
    ),
)


def official_client(served: Served) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
