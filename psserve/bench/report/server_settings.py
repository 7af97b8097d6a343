"""How the systems of a report were started."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import tomli_w

from psserve.bench.report.summary import Summary


def server_settings(summary: Summary) -> dict[str, str]:
    """System -> its servers' commands or its fleet.toml, of its first run. Ports and folders differ in the others."""
    found: dict[str, str] = {}
    for point in summary.points:
        told = point.line["psserve"]
        if text := _text(told.get("settings") or {}):
            found.setdefault(told["system"], text)
    return found


def _text(settings: Mapping[str, Any]) -> str:
    if commands := settings.get("commands"):
        return "\n".join(f"{name}: {shlex.join(command)}" for name, command in commands.items())
    return tomli_w.dumps(settings["fleet"]).strip() if "fleet" in settings else ""
