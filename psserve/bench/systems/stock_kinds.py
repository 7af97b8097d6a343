"""The systems of plain SGLang servers: which servers each has, and where a module's requests go.

All get the same KV tokens in total. docs/benchmarks.md says of each why it is set up as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from psserve.bench.systems.front import Route
from psserve.bench.systems.lora import check_lora, lora_arguments
from psserve.bench.systems.spec import SystemSpec
from psserve.bench.systems.stock_plan import StockPlanner
from psserve.fleet.plan.sglang_args import LOOPBACK
from psserve.zoo import Base


@dataclass(frozen=True)
class StockKind:
    """One such system."""

    plan: Callable[[Base, SystemSpec, StockPlanner, Callable[[str], Path]], Mapping[str, Route]]
    """Adds its servers to the planner, given the checkpoint of each module; returns module -> where its requests go."""
    share: Callable[[int], int]
    """Number of modules -> into how many equal pools its KV cache is cut."""
    needs_front: bool
    """Whether its modules need one URL in front of them, or are asked directly."""


def _disaggregated(
    base: Base, spec: SystemSpec, planner: StockPlanner, checkpoint: Callable[[str], Path]
) -> dict[str, Route]:
    """The paper's baseline: each module has a prefill and a decode server of its own."""
    routes = {}
    count = len(spec.modules)
    pool = spec.kv_tokens // (2 * count)
    for module in spec.modules:
        prefill = planner.add(f"prefill-{module}", "prefill", checkpoint(module), module, pool, sharers=count)
        decode = planner.add(f"decode-{module}", "decode", checkpoint(module), module, pool, sharers=count)
        routes[module] = Route(decode.url, None, prefill.url, LOOPBACK, prefill.bootstrap_port)
    return routes


def _colocated(
    base: Base, spec: SystemSpec, planner: StockPlanner, checkpoint: Callable[[str], Path]
) -> dict[str, Route]:
    """Each module has one ordinary server, whose radix cache keeps what its own module has read and written.

    On a CPU each computes on all cores, which was measured to be faster than sharing them out: seldom are all busy.
    """
    pool = spec.kv_tokens // len(spec.modules)
    return {
        module: Route(planner.add(f"server-{module}", "whole", checkpoint(module), module, pool, sharers=1).url)
        for module in spec.modules
    }


def _single(base: Base, spec: SystemSpec, planner: StockPlanner, checkpoint: Callable[[str], Path]) -> dict[str, Route]:
    """One model in all roles: an ordinary server of the base, which every module's requests go to."""
    server = planner.add("server-base", "whole", base.path, base.name, spec.kv_tokens, sharers=1)
    return {module: Route(server.url, model=base.name) for module in spec.modules}


def _lora(base: Base, spec: SystemSpec, planner: StockPlanner, checkpoint: Callable[[str], Path]) -> dict[str, Route]:
    """One ordinary server of the base with every module's LoRA adapter: weights are shared, KV is not."""
    check_lora(spec.modules, spec.adapters, planner.settings.device)
    adapters = {module: spec.adapters[module] for module in spec.modules}
    extra = lora_arguments(adapters)
    server = planner.add("server-base", "whole", base.path, base.name, spec.kv_tokens, extra, sharers=1)
    return {module: Route(server.url, model=f"{base.name}:{module}") for module in spec.modules}


STOCK_KINDS = {
    "disaggregated": StockKind(_disaggregated, share=lambda modules: 2 * modules, needs_front=True),
    "colocated": StockKind(_colocated, share=lambda modules: modules, needs_front=False),
    "lora": StockKind(_lora, share=lambda modules: 1, needs_front=True),
    "single": StockKind(_single, share=lambda modules: 1, needs_front=True),
}
