"""Figures as SVG for the page: inline, in the page's colours and its font."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from psserve.bench.report.axes import STYLE
from psserve.bench.report.palette import ALL

_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r'(<svg[^>]*?) width="[^"]*"([^>]*?) height="[^"]*"')
_FAMILY = re.compile(r"'DejaVu Sans'[^;\"]*")
_IDS = re.compile(r'(\bid="|xlink:href="#|url\(#)')


def save(figure: Any, png: Path, svg: Path) -> None:
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
    for colour in ALL:
        text = text.replace(colour.light, f"var(--{colour.name})")
    return text
