"""A waterfall in the terminal: one line a request, its phases in colours, and as letters where there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psserve.bench.trace.phases import PHASES
from psserve.bench.trace.waterfall import Row, Waterfall

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES = {
    "router_queue": ("r", "bright_black"),
    "prefill_queue": ("q", "yellow"),
    "prefill": ("P", "red"),
    "transfer": ("t", "magenta"),
    "decode_queue": ("w", "blue"),
    "decode": ("D", "green"),
}
UNKNOWN = ("·", "white")
"""A request whose servers told nothing."""


def show_waterfall(shown: Waterfall, out: Console, width: int = 60) -> None:
    """Print it on `out`; bars are `width` columns for the whole session."""
    from psserve.console import show, table

    columns = ("step", "module", ">prompt", ">cached", ">out", ">seconds", "")
    made = table(columns, [])
    for row in shown.rows:
        cells = (str(row.step), row.module, str(row.prompt_tokens), str(row.cached_tokens), str(row.output_tokens))
        seconds = f"{row.end - row.begin:.3f}"
        made.add_row(*cells, seconds, _bar(row, width / shown.seconds if shown.seconds else 0.0))
    show(made, out)
    show(_legend(), out)


def _bar(row: Row, scale: float) -> Text:
    from rich.text import Text

    bar = Text(" " * round(row.begin * scale), no_wrap=True)
    spans = row.spans or {"": (row.begin, row.end)}
    for phase, (begin, end) in spans.items():
        letter, style = STYLES.get(phase, UNKNOWN)
        bar.append(letter * (round(end * scale) - round(begin * scale)), style=style)
    if row.error is not None:
        bar.append(f" {row.error}", style="red")
    return bar


def _legend() -> Text:
    from rich.text import Text

    return Text("\n").join(
        Text.assemble((STYLES[phase][0], STYLES[phase][1]), f" {text}") for phase, text in PHASES.items()
    )
