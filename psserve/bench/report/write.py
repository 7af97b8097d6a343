"""A report as files in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from psserve.bench.report.document import document
from psserve.bench.report.facts import facts
from psserve.bench.report.markdown import markdown
from psserve.bench.report.page import page
from psserve.bench.report.panels import overview, panels
from psserve.bench.report.point import Point
from psserve.bench.report.server_settings import server_settings
from psserve.bench.report.summary import summarise_points
from psserve.bench.report.svg import save


def write_report(
    points: Sequence[Point], folder: Path, *, modules: int | None = None, load: float | None = None
) -> list[Path]:
    """Write report.html, report.md, report.json, report.png and report.svg into `folder`, and return their paths.

    `modules` and `load` choose what the headline is about, see summarise_points. Raises UsageError where nothing of
    that has run.
    """
    summary = summarise_points(points, modules, load)
    shown = panels(summary)
    told, settings = facts(summary), server_settings(summary)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"report.{kind}" for kind in ("html", "md", "json", "png", "svg")]
    html, text, data, png, svg = paths
    html.write_text(page(summary, shown, told, settings))
    text.write_text(markdown(summary, told, settings, png.name))
    data.write_text(json.dumps(document(summary), indent=1) + "\n")
    save(overview(shown, f"{summary.ours} side by side"), png, svg)
    return paths
