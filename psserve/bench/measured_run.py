"""One run against servers that are up, and what is under load: servers by URL, or the zoo's running fleet."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from psserve.bench.load.endpoints import base_url, context_limits, open_http, served_models, too_long
from psserve.bench.load.options import LoadOptions, LoadProgress
from psserve.bench.load.run import run_load
from psserve.bench.metrics import Slo, summarise
from psserve.bench.record import RequestRecord, RunHeader, mean_seconds, write_records
from psserve.bench.result import ResultLine, RunFacts, append_result, result_line
from psserve.bench.session import Session
from psserve.bench.systems.counters import Counters, Server
from psserve.bench.systems.system import Target
from psserve.bench.trace.spans import with_spans
from psserve.bench.workloads.choice import WorkloadChoice
from psserve.bench.workloads.trace import modules_of
from psserve.errors import BenchError, FleetError, UsageError
from psserve.fleet.observe.control import access_of, router_config_of
from psserve.fleet.run.state import running_fleet
from psserve.progress import Bars
from psserve.router.task_routing.routing import AUTO
from psserve.signals import heeded

CONCURRENCY = 4
"""Sessions at a time, where the user says nothing of how they arrive."""


@dataclass(frozen=True, kw_only=True)
class OneRun:
    """What is to be run, and where its results go."""

    target: Target
    modules: tuple[str, ...]
    """None named: all that the target serves."""
    workload: WorkloadChoice
    load: LoadOptions
    slo: Slo | None = None
    system: str = "url"
    """What the result calls the target."""
    tag: str | None = None
    command: str = ""
    out: Path | None = None
    """The result line is added to this file."""
    records: Path | None = None
    """The requests are written into this file."""
    run: str | None = None
    """The run's name; None: system and time."""
    exports: Path | None = None
    """Where the servers write down what they did when (psserve.bench.trace.spans): requests get their spans."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More keys for `psserve` in the result line."""


async def run_once(asked: OneRun, progress: LoadProgress, note: Callable[[str], None]) -> ResultLine:
    """Run, and return the result line, which is in the file by then. Ctrl-C and SIGTERM end the load, not this.

    Raises UsageError, BenchError and TraceError before anything was measured, OSError where a file cannot be written.
    """
    modules = asked.modules or (() if asked.workload.trace else await served_modules(asked.target))
    sessions, described = asked.workload.sessions(modules)
    called = tuple(described["modules"]) if asked.workload.trace else modules
    if isinstance(sessions, list):
        called = modules_of(sessions) or called
    load = _loop(asked.load, sessions, described)
    endpoints = asked.target.endpoints(called)
    if isinstance(sessions, list):
        await _note_too_long(sessions, endpoints, load, note)
    before: list[Counters | None] = []
    started = time.time()
    with _stopping(note) as stop:
        records = await run_load(
            sessions, endpoints, load, progress, stop, lambda: before.append(_counters(asked.target, note))
        )
    counted = _between(before[0], _counters(asked.target, note)) if before else None
    if asked.exports is not None:
        records = with_spans(records, asked.exports, started)
    facts = RunFacts(
        run=asked.run or f"{asked.system}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(started))}",
        system=asked.system,
        modules=called,
        workload=described,
        load=_load_json(load, described),
        command=asked.command,
        started=started,
        api=asked.load.api,
        tag=asked.tag,
        partial=stop.is_set(),
        extra={"endpoints": endpoints, "counters": counted, "phases_s": mean_seconds(records), **asked.extra},
    )
    line = result_line(summarise(records, asked.slo), facts)
    _keep(asked, facts, line, records)
    return line


async def _note_too_long(
    sessions: Sequence[Session], endpoints: Mapping[str, str], load: LoadOptions, note: Callable[[str], None]
) -> None:
    async with open_http(load) as http:
        limits = await context_limits(http, endpoints)
    if warning := too_long(sessions, limits):
        note(f"warning: {warning}")


def _loop(load: LoadOptions, sessions: Iterable[Session], described: Mapping[str, Any]) -> LoadOptions:
    """An open loop where sessions have starts and no concurrency was asked for, else a closed one."""
    starts = sessions[0].start_s is not None if isinstance(sessions, list) else bool(described.get("arrival"))
    if load.concurrency is not None or starts:
        return load
    return replace(load, concurrency=CONCURRENCY)


@contextmanager
def _stopping(note: Callable[[str], None]) -> Iterator[asyncio.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the next one is obeyed as if nobody listened."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    in_main = threading.current_thread() is threading.main_thread()  # others get no signals
    signals = heeded(signal.SIGINT, signal.SIGTERM) if in_main else ()

    def end() -> None:
        note("interrupted: the result will be of what was done so far")
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, end)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _counters(target: Target, note: Callable[[str], None]) -> Counters | None:
    try:
        return target.counters()
    except FleetError as error:  # the load is what was asked for
        note(f"warning: no counters of the servers: {error}")
        return None


def _between(before: Counters | None, after: Counters | None) -> dict[str, Any] | None:
    return None if before is None or after is None else after.since(before)


def _load_json(load: LoadOptions, workload: dict[str, Any]) -> dict[str, Any]:
    values = {name: value for name, value in asdict(load).items() if name not in ("api_key", "certificate")}
    values["tokenizer"] = None if load.tokenizer is None else str(load.tokenizer)
    return values | {"arrival": workload.get("arrival"), "sessions_per_s": workload.get("sessions_per_s")}


def _keep(asked: OneRun, facts: RunFacts, line: ResultLine, records: Sequence[RequestRecord]) -> None:
    if asked.out is not None:
        append_result(asked.out, line)
    if asked.records is not None:
        write_records(asked.records, RunHeader(facts.run, facts.system, facts.started), records)


def target_of_urls(urls: Sequence[str], api_key: str | None) -> Target:
    """`URL` for all modules, or `MODULE=URL` for one. Raises UsageError."""
    found: dict[str, str] = {}
    for text in urls:
        name, equals, url = text.partition("=")
        module, url = (name, url) if equals and "://" not in name else ("", text)
        if not url.startswith(("http://", "https://")) or module in found:
            raise UsageError(f"--url {text}: give http://HOST:PORT once, or MODULE=http://HOST:PORT once a module")
        if "@" in url:
            raise UsageError("--url with a name or password in it would be in the result: give a key by --api-key")
        found[module] = base_url(url)
    return Target(urls=found, api_key=api_key)


def target_of_zoo(zoo: Path, api_key: str | None) -> Target:
    """The zoo's running fleet. Raises NotRunning."""
    state = running_fleet(zoo)
    config = router_config_of(zoo)
    access = access_of(zoo, api_key)
    key = config.get("worker_key")
    workers: Sequence[Mapping[str, Any]] = config.get("workers", ()) if key else ()
    return Target(
        urls={"": state.url},
        api_key=access.api_key,
        certificate=access.certificate,
        servers=tuple(
            Server(worker["name"], f"http://{worker['host']}:{worker['port']}", prefills=worker["role"] == "prefill")
            for worker in workers
        ),
        pids={server.name: server.pid for server in state.servers if server.pid is not None},
        servers_key=key,
    )


async def served_modules(target: Target) -> tuple[str, ...]:
    """The modules that there are, where the user names none: of a psserve fleet those with a base, without aliases
    and without `auto`, which is listed too but only chooses between them.

    Raises BenchError where none can be found.
    """
    named = tuple(name for name in target.urls if name)
    if named:
        return named
    url = target.urls[""]
    async with open_http(LoadOptions(api_key=target.api_key, certificate=target.certificate)) as http:
        served = await served_models(http, url) or {}
    fine_tunes = {name: entry for name, entry in served.items() if entry.get("parent") and name != AUTO}
    by_root: dict[str, str] = {}
    for name, entry in fine_tunes.items():
        by_root.setdefault(entry.get("root") or name, name)  # aliases come after their module, with the same root
    modules = tuple(by_root.values()) or tuple(served)
    if not modules:
        raise BenchError(f"{url} lists no model: name them with --models")
    return modules


class RunProgress(Bars):
    """A run's sessions and requests as they end (as LoadProgress)."""

    def __init__(self, stream: TextIO) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        super().__init__(stream, TextColumn("sessions"), *columns)
        self._bar = self.add_task("", total=None)
        self._of: int | None = None
        self._sessions = self._requests = self._failed = 0

    def begin(self, sessions: int | None) -> None:
        self._of = sessions
        self.update(self._bar, total=sessions)

    def request_ended(self, record: RequestRecord) -> None:
        self._requests += 1
        self._failed += record.error is not None
        self._show()

    def session_ended(self) -> None:
        self._sessions += 1
        self._show()

    def _show(self) -> None:
        text = f"{self._requests} requests, {self._failed} failed"
        self.update(self._bar, completed=self._sessions, description=text)
        of = "" if self._of is None else f" of {self._of}"
        self.line(f"psserve: {self._sessions}{of} sessions, {text}")
