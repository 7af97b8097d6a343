"""What the user wants to be asked: a preset with changes, or a trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psserve.bench.session import BLOCK_TOKENS, Session
from psserve.bench.workloads.generate import iterate_sessions, make_sessions, with_single_module
from psserve.bench.workloads.trace import TraceOptions, modules_of, read_trace
from psserve.bench.workloads.workload import Preset, preset_workload
from psserve.errors import UsageError

FOR_TRACES = ("order", "seed", "scale", "sessions")
"""Fields of Workload that mean something with a trace; all else it says by itself."""


@dataclass(frozen=True, kw_only=True)
class WorkloadChoice:
    """The same choice makes the same sessions for the same modules."""

    preset: Preset | None = None
    """None: a trace."""
    trace: Path | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of Workload that are not the preset's; with a trace only those of `FOR_TRACES`."""
    block_tokens: int = BLOCK_TOKENS
    """Of a trace."""
    single_module: str | None = None
    """Asked in all roles."""

    def __post_init__(self) -> None:
        if (self.preset is None) == (self.trace is None):
            raise UsageError("give a --workload or a --trace, not both")

    def sessions(self, modules: tuple[str, ...]) -> tuple[Iterable[Session], dict[str, Any]]:
        """The sessions, a list unless they have no end, and their description for the result line.

        `modules`: who takes turns; of a trace, who answers lines that name no model.

        Raises UsageError for parameters that make no sense, TraceError for a broken trace.
        """
        made, described = self._trace(modules) if self.trace is not None else self._generated(modules)
        if self.single_module is not None:
            single = with_single_module(made, self.single_module)
            made = list(single) if isinstance(made, list) else single
            described["single_module"] = self.single_module
        return made, described

    def _generated(self, modules: tuple[str, ...]) -> tuple[Iterable[Session], dict[str, Any]]:
        assert self.preset is not None, "one of the two was given"
        workload = preset_workload(self.preset, modules, **self.changes)
        endless = workload.sessions is None
        return (iterate_sessions(workload) if endless else make_sessions(workload)), workload.as_json()

    def _trace(self, modules: tuple[str, ...]) -> tuple[Iterable[Session], dict[str, Any]]:
        assert self.trace is not None, "one of the two was given"
        taken = {name: value for name, value in self.changes.items() if name != "sessions"}
        options = TraceOptions(modules=modules, block_tokens=self.block_tokens, **taken)
        options.order.check(modules)
        sessions = read_trace(self.trace, options)[: self.changes.get("sessions")]
        return sessions, {
            "preset": "trace",
            "trace": str(self.trace),
            "sessions": len(sessions),
            "modules": list(modules_of(sessions)),
            "order": str(options.order),
            "seed": options.seed,
            "scale": options.scale,
            "block_tokens": options.block_tokens,
        }
