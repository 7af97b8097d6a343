"""The parameters of each kind of workload, where the user says nothing else.

docs/benchmarks.md says where each value comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psserve.bench.workloads.length import Length
from psserve.bench.workloads.workload import Preset, Workload

VALUES: dict[Preset, dict[str, Any]] = {
    "react": {"turns": Length(8, 8), "system": 2048, "new": Length(512, 512, 0.5), "output": Length(150, 150, 0.5)},
    "reflexion": {
        "turns": Length(6, 6),
        "trials": 3,
        "system": 2048,
        "new": Length(512, 512, 0.5),
        "output": Length(150, 150, 0.5),
    },
    "fanout": {"turns": Length(4, 4), "system": 2048, "new": Length(512, 512, 0.5), "output": Length(150, 150, 0.5)},
    "chat": {
        "turns": Length(6, 6),
        "system": 512,
        "new": Length(100, 100, 0.5),
        "output": Length(250, 250, 0.5),
        "think_s": 5.0,
    },
}


def preset_workload(preset: Preset, modules: Sequence[str], **changes: Any) -> Workload:
    """The preset's workload for these modules; `changes` are fields of Workload. Raises UsageError as Workload does."""
    return Workload(preset=preset, modules=tuple(modules), **(VALUES[preset] | changes))
