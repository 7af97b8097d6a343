"""What the pictures of a report are drawn with: colours for light and dark, matplotlib's axes in the report's manner.

Figures are kept as files, and as SVG in the page, in its colours and its font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psserve.bench.report.summary import Spread


@dataclass(frozen=True)
class Colour:
    """One colour of the report. In pictures it is `light`; in the page either, as the reader's screen is set."""

    name: str
    light: str
    dark: str


INK = Colour("ink", "#1b1d1e", "#ececea")
MUTED = Colour("muted", "#63686b", "#9aa0a2")
GRID = Colour("grid", "#e3e4e1", "#2b2f31")
SYSTEM_COLOURS = {
    "one-pool": Colour("one-pool", "#1f6f9c", "#62b5e5"),
    "shared": Colour("shared", "#0d8578", "#3ecab4"),
    "disaggregated": Colour("disaggregated", "#d0602a", "#f29a68"),
    "colocated": Colour("colocated", "#4668c5", "#8fabf7"),
    "lora": Colour("lora", "#9549ae", "#d397ea"),
}
OTHER_COLOURS = (
    Colour("other-1", "#7a6a1f", "#d6c05c"),
    Colour("other-2", "#b23a5b", "#f28aa8"),
    Colour("other-3", "#5b6670", "#a9b4bd"),
)
PHASE_COLOURS = {
    "router_queue": Colour("router-queue", "#a3a9ac", "#7d8487"),
    "prefill_queue": Colour("prefill-queue", "#f0c987", "#7a5a1f"),
    "prefill": Colour("prefill", "#d98e1f", "#e0a244"),
    "transfer": Colour("transfer", "#a25fb8", "#c58ad8"),
    "decode_queue": Colour("decode-queue", "#a8d3cd", "#24615a"),
    "decode": Colour("decode", "#2a9788", "#35b3a1"),
}
ALL_COLOURS = (INK, MUTED, GRID, *SYSTEM_COLOURS.values(), *OTHER_COLOURS, *PHASE_COLOURS.values())
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK.light,
    "axes.edgecolor": GRID.light,
    "axes.labelcolor": MUTED.light,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID.light,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED.light,
    "ytick.color": MUTED.light,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",  # text stays text: it takes the page's font, and can be found
    "svg.hashsalt": "psserve",
}
_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r'(<svg[^>]*?) width="[^"]*"([^>]*?) height="[^"]*"')
_FAMILY = re.compile(r"'DejaVu Sans'[^;\"]*")
_IDS = re.compile(r'(\bid="|xlink:href="#|url\(#)')


def colours(systems: Sequence[str]) -> dict[str, Colour]:
    """A colour for each system: its own, or the next of those for systems that nobody knows."""
    unknown = [system for system in systems if system not in SYSTEM_COLOURS]
    return {
        system: SYSTEM_COLOURS.get(system) or OTHER_COLOURS[unknown.index(system) % len(OTHER_COLOURS)]
        for system in systems
    }


def curve(axes: Any, at: Sequence[float], spreads: Sequence[Spread | None], colour: str, **how: Any) -> None:
    """A line through the middles, and a band from the smallest to the largest. Places without a figure are left out."""
    known = [(place, spread) for place, spread in zip(at, spreads, strict=True) if spread is not None]
    if not known:
        return
    places = [place for place, _ in known]
    axes.plot(places, [spread.middle for _, spread in known], color=colour, linewidth=1.8, markersize=4, **how)
    axes.fill_between(
        places,
        [spread.low for _, spread in known],
        [spread.high for _, spread in known],
        color=colour,
        alpha=0.18,
        linewidth=0,
    )


def bars(
    axes: Any, spreads: Mapping[str, Spread | None], colours: Mapping[str, str], told: Callable[[float], str]
) -> None:
    """One bar a system with its figure as `told`, and a whisker from the smallest to the largest."""
    for place, (system, spread) in enumerate(spreads.items()):
        if spread is None:
            continue
        axes.bar(place, spread.middle, width=0.62, color=colours[system])
        axes.plot([place, place], [spread.low, spread.high], color=INK.light, linewidth=1.1)
        axes.annotate(
            told(spread.middle), (place, spread.high), (0, 3), textcoords="offset points", ha="center", fontsize=8.5
        )
    axes.set_xticks(range(len(spreads)), list(spreads))
    axes.margins(y=0.14)


def steps(axes: Any, values: Sequence[float], title: str) -> None:
    """The x axis for values that double: each at its place on a logarithmic axis, and named there."""
    if min(values) > 0 and max(values) / min(values) >= 4:
        axes.set_xscale("log", base=2)
    axes.set_xticks(list(values), [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set_xlabel(title)


def save_figure(figure: Any, png: Path, svg: Path) -> None:
    """Write a figure as two files; the same figure gives the same files."""
    from matplotlib import rc_context

    figure.savefig(png, dpi=130)
    with rc_context(STYLE):
        figure.savefig(svg, metadata={"Date": None})


def inline(figure: Any, name: str) -> str:
    """The figure as an `<svg>` element that fills its place. `name` keeps its ids apart from those of others."""
    from matplotlib import rc_context

    written = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    text = _METADATA.sub("", _HEAD.sub("", written.getvalue()))
    text = _SIZE.sub(r"\1\2", text, count=1)
    text = _FAMILY.sub("sans-serif", text)
    text = _IDS.sub(rf"\g<1>{name}-", text)
    for colour in ALL_COLOURS:
        text = text.replace(colour.light, f"var(--{colour.name})")
    return text
