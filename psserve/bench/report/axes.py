"""What a picture of the report is drawn with: matplotlib's axes in the report's manner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from psserve.bench.report.palette import GRID, INK, MUTED
from psserve.bench.report.summary import Spread

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


def number(value: float) -> str:
    """Three digits that mean something: 0.0123, 1.23, 123, 12300."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"
