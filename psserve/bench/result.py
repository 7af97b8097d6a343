"""The result line of a run: one JSON object with the keys of SGLang's `bench_serving`, and ours under `psserve`.

A result file has one such line a run, appended. `show_line` prints one for people.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from psserve.bench.machine import describe
from psserve.console import show, table
from psserve.errors import BenchError

if TYPE_CHECKING:
    from rich.console import Console

ResultLine = dict[str, Any]
LoadKind = Literal["concurrency", "rate", "limit"]


@dataclass(frozen=True, order=True)
class LoadLevel:
    """How much was asked at once: sessions at a time; sessions that arrive a second; or, of sessions that arrive at a
    rate, at most so many at a time."""

    kind: LoadKind
    value: float
    rate: float = 0.0
    """`limit`: sessions that arrive a second."""

    def __str__(self) -> str:
        return {
            "concurrency": f"{self.value:g} at a time",
            "rate": f"{self.value:g} per second",
            "limit": f"{self.rate:g} per second, at most {self.value:g} at a time",
        }[self.kind]

    @property
    def name(self) -> str:
        """In a file's name: c8, r0.5, r0.5-l8."""
        return f"r{self.rate:g}-l{self.value:g}" if self.kind == "limit" else f"{self.kind[0]}{self.value:g}"


@dataclass(frozen=True, order=True)
class Cell:
    """Runs that may be compared: so many modules under such a load."""

    modules: int
    load: LoadLevel

    @property
    def title(self) -> str:
        """4 modules, 8 sessions at a time."""
        modules = f"{self.modules} module{'s' if self.modules != 1 else ''}"
        load = self.load
        if load.kind == "concurrency":
            return f"{modules}, {_sessions(load.value)} at a time"
        if load.kind == "rate":
            return f"{modules}, {_sessions(load.value)} arriving a second"
        return f"{modules}, {_sessions(load.rate)} arriving a second, at most {load.value:g} at a time"


def _sessions(number: float) -> str:
    return f"{number:g} session{'s' if number != 1 else ''}"


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


def result_line(summary: Mapping[str, Any], facts: RunFacts) -> ResultLine:
    """The line of a run. `summary`: what `psserve.bench.metrics.summarise` made of its requests."""
    measured = {name: value for name, value in summary.items() if name != "psserve"}
    workload, load = dict(facts.workload), dict(facts.load)
    return {
        "tag": facts.tag,
        "backend": "sglang-oai-chat" if facts.api == "chat" else "sglang-oai",
        "dataset_name": workload.get("preset"),
        "request_rate": "trace" if workload.get("preset") == "trace" else None,  # ours is of sessions: psserve.load
        "max_concurrency": load.get("concurrency") or load.get("limit"),
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


def read_results(path: Path) -> list[ResultLine]:
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


STATISTICS = ("mean", "median", "p90", "p95", "p99")
LATENCIES = (
    ("session, tools included", "session_latency"),
    ("session, waiting only", "session_waiting"),
    ("request", "e2e_latency"),
    ("time to first token", "ttft"),
    ("time per output token", "tpot"),
    ("between two pieces", "itl"),
)


def show_line(line: Mapping[str, Any], out: Console) -> None:
    """Print what was run, what came of it, latencies, and each module's part."""
    ours = line["psserve"]
    show(table(("figure", ">value"), _figures(line, ours)), out)
    out.print()
    show(table(("milliseconds", *(f">{name}" for name in STATISTICS)), _latencies({**line, **ours["sessions"]})), out)
    out.print()
    show(table(("module", ">requests", ">prompt tokens", ">cached", ">p95 TTFT ms"), _modules(ours)), out)


def warnings_of(line: Mapping[str, Any]) -> list[str]:
    """What a reader of the figures must know."""
    ours, said = line["psserve"], []
    errors = ours["errors"]
    if errors["requests"]:
        often, count = next(iter(errors["by_message"].items()))
        said.append(f"{errors['requests']} requests failed, and ended their sessions; most often ({count}): {often}")
    if ours["other_lengths"]:
        said.append(f"{ours['other_lengths']} answers were not as long as asked: the server does not obey ignore_eos")
    if ours["partial"]:
        said.append("the run was interrupted: these figures are of what was done until then")
    return [*said, *ours["client"]["warnings"]]


def _figures(line: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    sessions = ours["sessions"]
    yield "run", ours["run"]
    yield "seconds", f"{line['duration']:.1f}"
    yield "sessions", f"{sessions['completed']}"
    yield "sessions/s", f"{sessions['session_throughput']:.3f}"
    yield "requests", f"{line['completed']}"
    yield "requests/s", f"{line['request_throughput']:.2f}"
    yield "input tokens/s", f"{line['input_throughput']:.0f}"
    yield "output tokens/s", f"{line['output_throughput']:.1f}"
    yield "cached input tokens", f"{line['cache_report']['cache_hit_rate_pct']:.1f}%"
    if counters := ours.get("counters"):
        for side in ("prefill", "decode"):
            ratio = counters[side]["hit_ratio"]
            yield f"{side} servers' hit ratio", "-" if ratio is None else f"{ratio:.1%}"
        yield "KV moved, MB", f"{counters['kv_bytes'] / 1e6:.1f}"
        yield "CPU cores busy", f"{counters['cpu_cores'] or 0:.2f}"
        yield "host memory, GB", f"{counters['host_bytes'] / 1e9:.2f}"
    if goodput := ours.get("goodput"):
        yield "goodput, requests/s", f"{goodput['goodput']:.2f} ({goodput['good_request_fraction']:.1%})"
    yield "failed requests", f"{ours['errors']['requests']}"


def _latencies(values: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for title, name in LATENCIES:
        yield title, *(f"{values[f'{statistic}_{name}_ms']:.1f}" for statistic in STATISTICS)


def _modules(ours: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for name, values in ours["per_module"].items():
        cached = f"{values['cache_report']['cache_hit_rate_pct']:.1f}%"
        yield (
            name,
            str(values["completed"]),
            str(values["total_input_tokens"]),
            cached,
            f"{values['p95_ttft_ms']:.1f}",
        )
