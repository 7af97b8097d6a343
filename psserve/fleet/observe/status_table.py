"""A running fleet as people read it: a heading, and a table that fits the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from psserve.console import cell, table
from psserve.fleet.observe.overview import FleetOverview, ServerOverview, TrialOverview
from psserve.fleet.plan.parsers import Parsers
from psserve.fleet.plan.show import named

STATE_STYLES = {
    "ready": "green",
    "starting": "yellow",
    "restarting": "yellow",
    "draining": "yellow",
    "down": "red",
    "lost": "bold red",
    "failed": "bold red",
}
NOTHING = "-"
_VERSIONS = ("psserve", "sglang", "torch", "python")


@dataclass(frozen=True)
class _Column:
    """A title (as `psserve.console.table` has it), what a server has under it, and when it may be left out."""

    title: str
    text: Callable[[ServerOverview], str]
    rank: int = 0
    """Where the terminal is narrow, the highest goes first; 0 always stays."""


def render_status(fleet: FleetOverview, console: Console) -> RenderableType:
    """Everything that fits `console`; whole lines where that is a pipe."""
    problems = [
        cell(f"{server.name}: {server.error}", {})
        for server in fleet.servers
        if server.error and server.state != "ready"
    ]
    heading = (_heading(fleet), *_one_pool(fleet), *_trials(fleet))
    return Group(*heading, "", _fitting(fleet, console), *([""] if problems else []), *problems)


def _heading(fleet: FleetOverview) -> Text:
    ready = sum(server.state == "ready" for server in fleet.servers)
    state = "ready" if ready == len(fleet.servers) else f"{ready} of {len(fleet.servers)} ready"
    known = ", ".join(f"{name} {fleet.versions[name]}" for name in _VERSIONS if name in fleet.versions)
    return Text.assemble(
        *((fleet.url, "bold"), "  ", (state, "green" if state == "ready" else "yellow"), "  base "),
        *((fleet.base, "bold"), f"  supervisor pid {fleet.supervisor.pid}\n"),
        (f"zoo {fleet.zoo}\n{known}", "dim"),
    )


def _one_pool(fleet: FleetOverview) -> list[Text]:
    """What there is to say of a pool that decode servers read prompts in, and of their own."""
    if not fleet.one_pool:
        return []
    sides = [[server for server in fleet.servers if server.role == role] for role in ("prefill", "decode")]
    contexts, own = ([server for server in side if server.kv_tokens is not None] for side in sides)
    used = sum(server.kv_used_tokens or 0 for server in contexts)
    size = sum(server.kv_tokens or 0 for server in contexts)
    leases = [server.kv_leases for server in contexts if server.kv_leases is not None]
    count, tokens = sum(one.count for one in leases), sum(one.tokens for one in leases)
    oldest = duration(max((one.oldest_s for one in leases), default=0.0))
    lent = f"{tokens} are lent to {count} requests, the oldest for {oldest}" if count else "nothing is lent"
    each = Counter(server.module for server in own)  # several: replicas, or a version on trial beside another one
    names = [server.module if each[server.module] == 1 else server.name for server in own]
    parts = named([f"{name} {one.kv_used_tokens} of {one.kv_tokens}" for name, one in zip(names, own, strict=True)])
    return [Text(f"one KV pool: {used} of {size} tokens in use, {lent}\nown parts: {parts or NOTHING}", "dim")]


def _trials(fleet: FleetOverview) -> list[Text]:
    """A line for each version on trial."""
    return [_trial(trial) for trial in fleet.trials]


def _trial(trial: TrialOverview) -> Text:
    parts = [f"for {trial.share:g} % of the sessions"] if trial.share else []
    parts += ["in the shadow of the others"] if trial.shadow else []
    counts = f"{_count(trial.requests)} requests, version {trial.beside}: {_count(trial.requests_beside)}"
    return Text(f"{trial.module}: version {trial.version} is on trial {' and '.join(parts) or 'for nobody'}: {counts}")


def _fitting(fleet: FleetOverview, console: Console) -> Table:
    """The table with as many columns as the console is wide enough for."""
    columns = [column for column in _COLUMNS if not (column.rank and _says_nothing(column, fleet))]
    unbounded = console.options.update(max_width=10_000)
    while True:
        made = table(
            [column.title for column in columns],
            [[column.text(server) for column in columns] for server in fleet.servers],
            STATE_STYLES,
        )
        last = max(columns, key=lambda column: column.rank)
        if not last.rank or Measurement.get(console, unbounded, made).maximum <= console.width:
            return made
        columns.remove(last)


def _says_nothing(column: _Column, fleet: FleetOverview) -> bool:
    return all(column.text(server) == NOTHING for server in fleet.servers)


def duration(seconds: float) -> str:
    """The two largest units: 42 s, 3 m 12 s, 5 h 2 m, 4 d 7 h."""
    whole = int(seconds)
    for size, unit, part, smaller in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"


def _bytes(count: int | None) -> str:
    if count is None:
        return NOTHING
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _count(count: int | None) -> str:
    return NOTHING if count is None else str(count)


def _share(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.0%}"


def _name(server: ServerOverview) -> str:
    several = server.processes is not None and server.processes > 1
    return f"{server.name} ({server.processes} processes)" if several else server.name


def _module(server: ServerOverview) -> str:
    if server.sharing is not None:
        return f"{server.module} ({server.sharing})"
    return server.module or NOTHING


def _kv(server: ServerOverview) -> str:
    if not server.kv_tokens or server.kv_used_tokens is None:
        return NOTHING
    return _share(server.kv_used_tokens / server.kv_tokens)


def _parsers(server: ServerOverview) -> str:
    return str(Parsers(server.tool_call_parser, server.reasoning_parser))


_COLUMNS = (
    _Column("server", _name),
    _Column("role", lambda s: s.role, rank=4),
    _Column("module", _module, rank=3),
    _Column("state", lambda s: s.state),
    _Column("device", lambda s: s.device, rank=2),
    _Column(">memory", lambda s: _bytes(s.memory_bytes)),
    _Column(">GPU", lambda s: _bytes(s.gpu_memory_bytes), rank=1),
    _Column(">running", lambda s: _count(s.running)),
    _Column(">queued", lambda s: _count(s.queued)),
    _Column(">hits", lambda s: _share(s.cache_hit_rate)),
    _Column(">KV", _kv),
    _Column(">restarts", lambda s: str(s.restarts)),
    _Column(">up", lambda s: NOTHING if s.uptime_s is None else duration(s.uptime_s)),
    _Column(">pid", lambda s: _count(s.pid), rank=5),
    _Column(">port", lambda s: str(s.port), rank=6),
    _Column("parsers", _parsers, rank=7),
)
