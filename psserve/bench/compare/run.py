"""Running a comparison: every system in turn, each run's result kept as soon as it is there."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TextIO

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from psserve.bench.compare.plan import ComparisonFolder, Plan, Run, Visit
from psserve.bench.compare.systems import Systems
from psserve.bench.load.options import LoadOptions
from psserve.bench.measured_run import OneRun, run_once
from psserve.bench.metrics import Slo
from psserve.bench.record import RequestRecord
from psserve.bench.result import LoadLevel, ResultLine
from psserve.bench.systems.system import RunningSystem
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.bench.workloads.trace import modules_of
from psserve.errors import BenchError, StartError, UsageError
from psserve.progress import Bars


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, how, and with what."""

    plan: Plan
    systems: Systems
    workload: WorkloadChoice
    load: LoadOptions
    """What runs have in common; the plan says how many sessions at a time."""
    slo: Slo | None
    resident: bool
    """Systems stay up from their first run to the last one, side by side, instead of one at a time."""
    command: str


@dataclass(frozen=True)
class ComparisonOutcome:
    """How a comparison ended."""

    interrupted: bool
    failures: tuple[str, ...]
    """What kept runs from being done, once each."""


def check_sessions(asked: Comparison) -> None:
    """Make sessions for every cell, to no other end than to tell what is wrong with them before a system starts.

    Raises UsageError for a workload that cannot be, or that asks modules which the systems do not have; TraceError for
    a broken trace.
    """
    loads = {run.cell.load.kind for run in asked.plan.runs}
    if asked.workload.trace is not None and loads != {"concurrency"}:
        raise UsageError("a trace says by itself when its sessions start: leave --rate out")
    if "arrival" in asked.workload.changes and "concurrency" in loads:
        raise UsageError("--arrival needs a --rate")
    for cell in {run.cell for run in asked.plan.runs}:
        modules = asked.systems.modules[: cell.modules]
        made, _ = _paced(asked.workload, cell.load).sessions(modules)
        others = set(modules_of(made)).difference(modules)
        if others and asked.systems.spec is not None:
            raise UsageError(f"sessions ask {', '.join(sorted(others))}: the systems have {', '.join(modules)}")


def run_comparison(asked: Comparison, store: ComparisonFolder, progress: CompareProgress) -> ComparisonOutcome:
    """Run all that is not done yet. Ctrl-C and SIGTERM end it; what was done is in `store` then.

    A system that does not start, or is not to be reached any more, costs its own runs only. Raises UsageError, ZooError
    and PlanError for what cannot work at all, BenchError for a URL that cannot be measured before anything runs.
    """
    asyncio.run(asked.systems.check_urls())
    failures: list[str] = []
    interrupted = False
    try:
        with _terminable(), _Holder(asked, progress.note) as holder:
            for visit in asked.plan.visits():
                try:
                    interrupted = not _visit(asked, visit, holder, store, progress)
                except (StartError, BenchError) as error:
                    progress.note(f"warning: {visit.system}: {error}")
                    failures.append(f"{visit.system}: {error}")
                if interrupted:
                    break
    except KeyboardInterrupt:
        interrupted = True
    return ComparisonOutcome(interrupted, tuple(dict.fromkeys(failures)))


def _visit(
    asked: Comparison, visit: Visit, holder: _Holder, store: ComparisonFolder, progress: CompareProgress
) -> bool:
    """Do what is missing of a visit; False if the user wants no more."""
    done = store.done()
    missing = [run for run in visit.runs if run.name not in done]
    if not missing:
        return True
    with holder.system(visit) as started:
        for run in missing:
            progress.starts(run)
            line = asyncio.run(run_once(_one_run(asked, run, started, store), progress, progress.note))
            _obey_sigterm()  # the run listened itself, and has stopped
            if line["psserve"]["partial"]:
                return False
            progress.ended(run, line)
    return True


def _one_run(asked: Comparison, run: Run, started: RunningSystem, store: ComparisonFolder) -> OneRun:
    level = run.cell.load
    return OneRun(
        target=started.target,
        modules=asked.systems.modules[: run.cell.modules],
        workload=_paced(asked.workload, level),
        load=replace(
            asked.load,
            concurrency=int(level.value) if level.kind == "concurrency" else None,
            limit=int(level.value) if level.kind == "limit" else None,
            # The same texts for all systems, and new ones for each run: no run finds what another one left.
            salt=f"{asked.load.salt}-{run.repeat}-{level.name}",
        ),
        slo=asked.slo,
        system=run.system,
        command=asked.command,
        out=store.results,
        records=store.records(run),
        run=run.name,
        exports=started.exports,
        extra={"repeat": run.repeat, "settings": dict(started.settings)},
    )


def _paced(workload: WorkloadChoice, load: LoadLevel) -> WorkloadChoice:
    """With arrivals as in `load`: in a closed loop there are none."""
    changes = {name: value for name, value in workload.changes.items() if name != "arrival"}
    if load.kind != "concurrency":
        rate = load.rate if load.kind == "limit" else load.value
        changes |= {"arrival": workload.changes.get("arrival", "poisson"), "sessions_per_s": rate}
    return replace(workload, changes=changes)


class _Holder(contextlib.ExitStack):
    """Has systems up: one at a time, or each from its first visit on."""

    def __init__(self, asked: Comparison, note: Callable[[str], None]) -> None:
        super().__init__()
        self._asked, self._note = asked, note
        self._up: dict[tuple[str, int], RunningSystem] = {}

    @contextlib.contextmanager
    def system(self, visit: Visit) -> Iterator[RunningSystem]:
        """The system of a visit, started if it is not up."""
        starting = self._asked.systems.started(visit.system, visit.modules, self._note)
        if not self._asked.resident:
            with starting as started:
                yield started
            return
        key = (visit.system, visit.modules)
        if key not in self._up:
            self._up[key] = self.enter_context(starting)
        yield self._up[key]


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the comparison as Ctrl-C does, so that no server is left behind."""
    before = signal.getsignal(signal.SIGTERM)
    _obey_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _obey_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class CompareProgress(Bars):
    """The runs that are done, and the sessions of the one under way (as LoadProgress); elsewhere a line a run."""

    def __init__(self, stream: TextIO, runs: int, done: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(stream, *columns)
        self._runs, self._done = runs, done
        self._all = self.add_task("runs", total=runs, completed=done)
        self._sessions = self.add_task("", total=None, visible=False)

    def starts(self, run: Run) -> None:
        """The next run begins."""
        self.reset(self._sessions, description=_title(run), total=None, visible=True)

    def ended(self, run: Run, line: ResultLine) -> None:
        """A run is over, and its line is in the file."""
        self._done += 1
        self.update(self._all, completed=self._done)
        self.update(self._sessions, visible=False)
        p95 = line["psserve"]["sessions"]["p95_session_latency_ms"] / 1000
        figures = f"{line['request_throughput']:.3g} requests/s, 95% of the sessions within {p95:.3g} s"
        failed = line["psserve"]["errors"]["requests"]
        self.note(f"{self._done} of {self._runs}: {_title(run)}: {figures}" + (f", {failed} failed" if failed else ""))

    def begin(self, sessions: int | None) -> None:
        self.update(self._sessions, total=sessions)

    def request_ended(self, record: RequestRecord) -> None:
        pass

    def session_ended(self) -> None:
        self.advance(self._sessions)


def _title(run: Run) -> str:
    return f"{run.system}, {run.cell.title}, repeat {run.repeat + 1}"
