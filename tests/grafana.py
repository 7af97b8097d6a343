"""The names of metrics that the Grafana dashboard asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "psserve.json"
NAME = re.compile(r"\b(?:psserve_|sglang:)\w+")


def expressions() -> Iterator[str]:
    """Every PromQL expression of every panel."""

    def walk(panels: list[dict[str, Any]]) -> Iterator[str]:
        for panel in panels:
            yield from (target["expr"] for target in panel.get("targets", []))
            yield from walk(panel.get("panels", []))

    yield from walk(json.loads(DASHBOARD.read_text())["panels"])


def panel_names(prefix: str) -> set[str]:
    """Those that begin with `prefix`."""
    found = (name for expression in expressions() for name in NAME.findall(expression))
    return {name for name in found if name.startswith(prefix)}
