"""The pictures of a report. Each is drawn only where there is something to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psserve.bench.record import HANDOFF, handoff_share
from psserve.bench.report.drawing import PHASE_COLOURS, STYLE, bars, colours, curve, steps
from psserve.bench.report.summary import (
    DECODE_HIT,
    P50_REQUEST,
    P95_REQUEST,
    P95_SESSION,
    P95_TPOT,
    P95_TTFT,
    PREFILL_HIT,
    THROUGHPUT,
    Metric,
    Spread,
    Summary,
)
from psserve.bench.report.tables import number_text
from psserve.bench.result import Cell

AXES = {
    "concurrency": "sessions at a time",
    "rate": "sessions that arrive a second",
    "limit": "sessions at a time, at most",
}
DASHED = "; dashed: "
"""Parts what the solid line is from what the dashed one is, which bars do not show."""
SIZE = (3.9, 2.7)
"""Inches: one picture, readable on a phone."""


@dataclass(frozen=True)
class Panel:
    """One picture."""

    name: str
    title: str
    says: str
    """What is to be seen, in a sentence."""
    draw: Callable[[Any], None]
    """On matplotlib's axes."""


def panels(summary: Summary) -> list[Panel]:
    """The pictures for these runs, the most telling ones first."""
    found = [
        _load_panel(summary, "throughput", "Throughput", "More is better.", [THROUGHPUT]),
        _load_panel(summary, "session", "95% of the sessions are done within", "Less is better.", [P95_SESSION]),
        _phase_panel(summary),
        _load_panel(
            summary,
            "hits",
            "Prompt tokens found in a cache",
            f"Prefill side{DASHED}decode side.",
            [PREFILL_HIT, DECODE_HIT],
        ),
        _size_panel(summary, "modules-throughput", "Throughput by number of modules", THROUGHPUT),
        _size_panel(summary, "modules-session", "Session latency, p95, by number of modules", P95_SESSION),
        _load_panel(summary, "request", "One request takes", f"p95{DASHED}median.", [P95_REQUEST, P50_REQUEST]),
        _load_panel(summary, "ttft", "Time to first token, p95", "Less is better.", [P95_TTFT]),
        _load_panel(summary, "tpot", "Time per output token, p95", "Less is better.", [P95_TPOT]),
    ]
    return [panel for panel in found if panel is not None]


def figure(panel: Panel) -> Any:
    """A panel as a matplotlib figure of its own."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        made = Figure(figsize=SIZE, layout="constrained")
        panel.draw(made.subplots())
    return made


def overview(shown: Sequence[Panel], title: str, columns: int = 3) -> Any:
    """All panels in one figure."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = -(-len(shown) // columns)
    columns = min(columns, len(shown))
    with rc_context(STYLE):
        made = Figure(figsize=(SIZE[0] * columns, (SIZE[1] + 0.3) * rows + 0.4), layout="constrained")
        made.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        grid = made.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(grid, shown, strict=False):
            axes.set_title(panel.title)
            panel.draw(axes)
        for axes in grid[len(shown) :]:
            axes.remove()
    return made


def _load_panel(summary: Summary, name: str, title: str, says: str, metrics: Sequence[Metric]) -> Panel | None:
    """Figures against load, with the headline's number of modules; bars where there is one load only."""
    cells = summary.curve
    shown = [metric for metric in metrics if any(_values(summary, cells, metric, system) for system in summary.systems)]
    if not shown:
        return None
    paint = {system: colour.light for system, colour in colours(summary.systems).items()}

    def draw_curves(axes: Any) -> None:
        for system in summary.systems:
            for metric, how in zip(metrics, ({"marker": "o", "label": system}, {"linestyle": "--"}), strict=False):
                spreads = [summary.values(system, cell, metric) for cell in cells]
                curve(axes, [cell.load.value for cell in cells], spreads, paint[system], **how)
        steps(axes, [cell.load.value for cell in cells], AXES[summary.head.load.kind])
        axes.legend()
        _from_zero(axes, shown[0])

    def draw_bars(axes: Any) -> None:
        spreads = {system: summary.values(system, cells[0], shown[0]) for system in summary.systems}
        bars(axes, spreads, paint, "{:.0%}".format if shown[0].unit == "share" else number_text)
        _from_zero(axes, shown[0])

    if len(cells) > 1:
        return Panel(name, title, says, draw_curves)
    return Panel(name, title, says.split(DASHED)[0] + "." if DASHED in says else says, draw_bars)


def _size_panel(summary: Summary, name: str, title: str, metric: Metric) -> Panel | None:
    """What more modules cost, under the headline's load."""
    cells = [cell for cell in summary.cells if cell.load == summary.head.load]
    if len(cells) < 2:
        return None
    paint = {system: colour.light for system, colour in colours(summary.systems).items()}

    def draw(axes: Any) -> None:
        for system in summary.systems:
            spreads = [summary.values(system, cell, metric) for cell in cells]
            curve(axes, [cell.modules for cell in cells], spreads, paint[system], marker="o", label=system)
        steps(axes, [cell.modules for cell in cells], f"modules ({summary.head.load})")
        axes.legend()
        _from_zero(axes, metric)

    return Panel(name, title, "More is better." if metric.higher_is_better else "Less is better.", draw)


def _phase_panel(summary: Summary) -> Panel | None:
    """Where the time of a request goes, in the headline's cell."""
    spent = {system: summary.phases(system, summary.head) for system in summary.systems}
    spent = {system: phases for system, phases in spent.items() if phases}
    if not spent:
        return None
    longest = max(sum(phases.values()) for phases in spent.values())

    def draw(axes: Any) -> None:
        for place, phases in enumerate(spent.values()):
            begin = 0.0
            for phase, seconds in phases.items():
                label = phase.replace("_", " ") if place == 0 else None
                axes.barh(place, seconds, left=begin, height=0.6, color=PHASE_COLOURS[phase].light, label=label)
                begin += seconds
            axes.annotate(_told(phases), (begin, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(spent)), list(spent))
        axes.invert_yaxis()
        axes.set_xlim(0, longest * 1.3)
        axes.set_xlabel("seconds, mean of all requests")
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.45, -0.22))

    return Panel(
        "phases", "Where the time of a request goes", f"Hand-off: {' and '.join(HANDOFF)}.".replace("_", " "), draw
    )


def _told(phases: dict[str, float]) -> str:
    share = handoff_share(phases) or 0.0
    return f"{number_text(sum(phases.values()))} s" + (f", hand-off {share:.0%}" if share >= 0.005 else "")


def _values(summary: Summary, cells: Sequence[Cell], metric: Metric, system: str) -> list[Spread]:
    return [spread for cell in cells if (spread := summary.values(system, cell, metric)) is not None]


def _from_zero(axes: Any, metric: Metric) -> None:
    axes.set_ylim(bottom=0)
    if metric.unit == "share":
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    else:
        axes.set_ylabel(metric.unit)
