"""Figures, from measurements, beside their targets: as a table for people, as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Figure:
    """One measured value. `target` is the most it should be, or the least; None where nothing was promised."""

    name: str
    value: float
    unit: str
    target: float | None = None
    is_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.is_least else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        told = {"name": self.name, "value": self.value, "unit": self.unit, "target": self.target, "met": self.met}
        return told | ({"is_least": True} if self.is_least else {})


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest ranks."""
    return float(np.percentile(values, percent))


def in_ms(seconds: float) -> float:
    """Seconds as milliseconds, to the microsecond."""
    return round(seconds * 1000, 3)


def table(figures: Sequence[Figure]) -> str:
    """One line a figure: name, value, unit, target, and whether it was met."""
    rows = [("figure", "value", "unit", "target", "")]
    rows += [(f.name, f"{f.value:g}", f.unit, _target(f), _verdict(f)) for f in figures]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(_line(row, widths) for row in rows)


def heading(machine: Mapping[str, Any]) -> str:
    """The machine and its software in three lines."""
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
    gpus = "; ".join(machine["gpus"]) or "no GPU"
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; {gpus}\n"
        f"psserve {machine['psserve']}, Python {machine['python']}, {versions}\n"
        f"{machine['time']}"
    )


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    return f"{'>=' if figure.is_least else '<='} {figure.target:g}"


def _verdict(figure: Figure) -> str:
    return "" if figure.met is None else "met" if figure.met else "MISSED"


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    name, *rest = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    value = row[1].rjust(widths[1])
    return "  ".join((name, value, *rest[1:])).rstrip()
