"""On what and how the runs of a report were made, as words by label, and how the systems were started."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping
from typing import Any

import tomli_w

from psserve.bench.report.summary import Summary


def facts(summary: Summary) -> dict[str, str]:
    """Machine, versions, workload, dates and commands; runs that differ are told as a list."""
    told = [point.line["psserve"] for point in summary.points]
    simulated = [line for line in told if line.get("simulated")]
    machines = [line.get("machine") or {} for line in told]
    found = {
        "machine": _each(_machine(machine) for machine in machines),
        "software": _each(_software(machine) for machine in machines),
        "workload": _each(_pairs(line.get("workload") or {}) for line in told),
        "simulated": _each(f"{line['system']}: {_pairs(line.get('settings') or {})}" for line in simulated),
        "runs": _runs(summary),
        "when": _when([float(line["started"]) for line in told if line.get("started")]),
        "command": _each(str(line.get("command") or "") for line in told),
    }
    return {label: text for label, text in found.items() if text}


def _machine(machine: Mapping[str, Any]) -> str:
    if not machine:
        return ""
    gpus = ", ".join(machine.get("gpus") or ()) or "no GPU"
    return f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('memory_gib')} GiB, {gpus}"


def _software(machine: Mapping[str, Any]) -> str:
    versions = {"psserve": machine.get("psserve"), **(machine.get("versions") or {}), "Python": machine.get("python")}
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _runs(summary: Summary) -> str:
    repeats = max(point.repeat for point in summary.points) + 1
    requests = sum(int(point.line.get("completed") or 0) for point in summary.points)
    return f"{len(summary.points)}, up to {repeats} of each kind; {requests} requests answered"


def _when(started: list[float]) -> str:
    if not started:
        return ""
    first, last = (time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when)) for when in (min(started), max(started)))
    return first if first == last else f"{first} to {last}"


def _each(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


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
