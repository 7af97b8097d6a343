"""What a simulation's times and memory are from: published figures, or measured runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psserve.bench.simulator.calibration import Calibration, calibrate
from psserve.bench.simulator.costs import Costs, TransferCosts, costs_of, pool_tokens
from psserve.bench.simulator.hardware import find_card
from psserve.bench.simulator.shapes import find_shape
from psserve.errors import UsageError


@dataclass(frozen=True)
class Basis:
    """`told` goes into the result lines."""

    costs: Costs
    kv_tokens: int
    decode_kv_tokens: int | None
    told: Mapping[str, Any]
    calibration: Calibration | None = None


def published(
    model: str, hardware: str, kv_tokens: int | None, decode_kv_tokens: int | None, link_gb_s: float | None
) -> Basis:
    """From data sheets. Raises UsageError for a model or card that is not known, or if one does not fit the other."""
    shape, card = find_shape(model), find_card(hardware)
    costs = costs_of(shape, card)
    if link_gb_s is not None:
        costs = replace(costs, transfer=TransferCosts(costs.transfer.request_s, 1e-9 / link_gb_s))
    told = {"model": model, "hardware": hardware, "link_gb_s": round(1e-9 / costs.transfer.byte_s, 3)}
    return Basis(costs, kv_tokens or pool_tokens(shape, card), decode_kv_tokens, told)


def measured(path: Path, kv_tokens: int | None, decode_kv_tokens: int | None) -> Basis:
    """From the records of runs. Raises BenchError for a file that is none, UsageError without a pool's size."""
    if kv_tokens is None:
        raise UsageError("--calibrate tells times, not memory: give --kv-tokens too, the KV pool of a server")
    calibration = calibrate([path])
    told = {"calibrated": str(path), "error_pct": {name: fit.error_pct for name, fit in calibration.fits.items()}}
    return Basis(calibration.costs, kv_tokens, decode_kv_tokens, told, calibration)
