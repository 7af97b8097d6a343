"""The result line of a run: one JSON object with the keys of SGLang's `bench_serving`, and ours under `psserve`.

A result file has one such line a run, appended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psserve.bench.machine import describe
from psserve.errors import BenchError

Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What was run; everything that is needed to run it again."""

    run: str
    """The run's name."""
    system: str
    """`shared`, `disaggregated`, `colocated`, `lora`, `single`, or what the user calls it."""
    modules: tuple[str, ...]
    workload: Mapping[str, Any]
    """Its parameters as JSON; `preset` and `seed` are among them."""
    load: Mapping[str, Any]
    """How it was sent, as JSON; `concurrency` and `sessions_per_s` are among them."""
    command: str
    started: float
    """Seconds since 1970: what the requests' times count from."""
    api: str = "chat"
    tag: str | None = None
    partial: bool = False
    """The run was interrupted: the figures are of what was done until then."""
    simulated: bool = False
    server_info: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More keys for `psserve`: counters of servers, memory, CPU."""


def result_line(summary: Mapping[str, Any], facts: RunFacts) -> Line:
    """The line of a run. `summary`: what `psserve.bench.metrics.summarise` made of its requests."""
    measured = {name: value for name, value in summary.items() if name != "psserve"}
    workload, load = dict(facts.workload), dict(facts.load)
    return {
        "tag": facts.tag,
        "backend": "sglang-oai-chat" if facts.api == "chat" else "sglang-oai",
        "dataset_name": workload.get("preset"),
        "request_rate": "trace" if workload.get("preset") == "trace" else None,  # ours is of sessions: psserve.load
        "max_concurrency": load.get("concurrency"),
        "sharegpt_output_len": None,
        "random_input_len": None,
        "random_output_len": None,
        "random_range_ratio": None,
        "server_info": facts.server_info,
        **measured,
        "psserve": {
            "run": facts.run,
            "system": facts.system,
            "modules": list(facts.modules),
            "partial": facts.partial,
            "simulated": facts.simulated,
            "started": facts.started,
            "command": facts.command,
            "workload": workload,
            "load": load,
            "machine": describe(),
            **summary.get("psserve", {}),
            **facts.extra,
        },
    }


def append_result(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a result file and have it on disk before this returns. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_results(path: Path) -> list[Line]:
    """The lines of a result file. Raises BenchError for one that is no result of ours, naming file and line."""
    lines = []
    for number, text in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise BenchError(f"{path}, line {number}: no JSON: {error}") from None
        if not isinstance(line, dict) or not isinstance(line.get("psserve"), dict) or "duration" not in line:
            raise BenchError(f"{path}, line {number}: no result of psserve bench")
        lines.append(line)
    return lines
