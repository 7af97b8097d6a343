"""What is asked of the servers, beside what they hold: by this it is decided how many there should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from psserve.router.observability.instruments import Instruments
from psserve.router.workers.workers import Worker


@dataclass(frozen=True)
class Demand:
    """What waits and what runs, at one moment, in tokens."""

    decode: Mapping[str, int]
    """Module, or group of modules -> KV of its sequences: their prompts, and as much answer as is expected."""
    prefill: int
    """Prompts that no prefill server has computed yet: of those sent, what is not cached; of those that wait, all."""


NOTHING = Demand({}, 0)


class DemandMetrics:
    """Metrics of demand and supply, each labelled by what decode servers run: a module, or the group of adapters."""

    def __init__(self, registry: Instruments) -> None:
        self.source: Callable[[], Demand] = lambda: NOTHING
        """Asked whenever a page is rendered."""
        self._decode = registry.gauge(
            "psserve_decode_demand_tokens",
            "KV of the sequences that wait or run, expected answers included.",
            "servers",
        )
        self._supply = registry.gauge("psserve_decode_kv_tokens", "KV pools of the servers that are ready.", "servers")
        self._prefill = registry.gauge(
            "psserve_prefill_demand_tokens", "Tokens of prompts that wait, or were sent and are not computed yet."
        )

    def look_at(self, workers: Iterable[Worker]) -> None:
        """Take what is asked of these workers, and what they hold."""
        demand = self.source()
        supply: Counter[str] = Counter()
        for worker in workers:
            if worker.config.module is not None:
                supply[worker.config.module] += (worker.config.kv_tokens or 0) * worker.is_ready
        self._decode.clear()
        self._supply.clear()
        for servers, tokens in supply.items():
            self._supply.labels(servers).set(tokens)
            self._decode.labels(servers).set(demand.decode.get(servers, 0))
        self._prefill.set(demand.prefill)
