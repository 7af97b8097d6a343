"""Colours of systems and phases, for light and for dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """One colour of the report. In pictures it is `light`; in the page either, as the reader's screen is set."""

    name: str
    light: str
    dark: str


INK = Colour("ink", "#1b1d1e", "#ececea")
MUTED = Colour("muted", "#63686b", "#9aa0a2")
GRID = Colour("grid", "#e3e4e1", "#2b2f31")

SYSTEMS = {
    "shared": Colour("shared", "#0d8578", "#3ecab4"),
    "disaggregated": Colour("disaggregated", "#d0602a", "#f29a68"),
    "colocated": Colour("colocated", "#4668c5", "#8fabf7"),
    "lora": Colour("lora", "#9549ae", "#d397ea"),
}
OTHERS = (
    Colour("other-1", "#7a6a1f", "#d6c05c"),
    Colour("other-2", "#b23a5b", "#f28aa8"),
    Colour("other-3", "#5b6670", "#a9b4bd"),
)
PHASES = {
    "router_queue": Colour("router-queue", "#a3a9ac", "#7d8487"),
    "prefill_queue": Colour("prefill-queue", "#f0c987", "#7a5a1f"),
    "prefill": Colour("prefill", "#d98e1f", "#e0a244"),
    "transfer": Colour("transfer", "#a25fb8", "#c58ad8"),
    "decode_queue": Colour("decode-queue", "#a8d3cd", "#24615a"),
    "decode": Colour("decode", "#2a9788", "#35b3a1"),
}
ALL = (INK, MUTED, GRID, *SYSTEMS.values(), *OTHERS, *PHASES.values())


def colours(systems: Sequence[str]) -> dict[str, Colour]:
    """A colour for each system: its own, or the next of those for systems that nobody knows."""
    unknown = [system for system in systems if system not in SYSTEMS]
    return {system: SYSTEMS.get(system) or OTHERS[unknown.index(system) % len(OTHERS)] for system in systems}
