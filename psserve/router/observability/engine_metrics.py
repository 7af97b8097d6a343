"""What the SGLang servers say of themselves, asked only when somebody looks, and at most once a second however many do.

Their metrics become one page: every sample gets a `worker` label, every family one header.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping

from psserve.contracts.servers import LOADS_PATH, METRICS_PATH, KvLeases, ServerLoad, parse_kv_leases, parse_server_load
from psserve.router.workers.tasks import Fresh
from psserve.router.workers.upstream import Upstream
from psserve.router.workers.workers import Worker, WorkerTable

FRESH_S = 1.0
ANSWER_S = 5.0
"""A worker that is silent for so long is left out."""
UP = "psserve_engine_metrics_up"
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class EngineMetrics:
    """The page with the last answers of all workers."""

    def __init__(self, table: WorkerTable, upstream: Upstream) -> None:
        self._table = table
        self._upstream = upstream
        self._page = Fresh(self._ask_all, FRESH_S)

    async def read(self) -> bytes:
        """The page, in Prometheus' text format."""
        return await self._page.read()

    async def _ask_all(self) -> bytes:
        workers = list(self._table.workers)
        answers = await asyncio.gather(*(self._ask(worker) for worker in workers))
        named = [(worker.name, answer) for worker, answer in zip(workers, answers, strict=True)]
        # Some thousand lines a worker: not in the event loop.
        return await asyncio.to_thread(merged_pages, named)

    async def _ask(self, worker: Worker) -> str | None:
        if not worker.is_ready:
            return None
        answer = await self._upstream.get(worker, METRICS_PATH, ANSWER_S)
        return None if answer is None else answer.decode(errors="replace")


def merged_pages(pages: Iterable[tuple[str, str | None]]) -> bytes:
    """One page of the pages of workers, given by name; None: it gave none, as `psserve_engine_metrics_up` then says."""
    up = [f"# HELP {UP} Whether its metrics are here.", f"# TYPE {UP} gauge"]
    there: list[tuple[str, str]] = []
    for worker, page in pages:
        up.append(f'{UP}{{worker="{worker}"}} {int(page is not None)}')
        if page is not None:
            there.append((worker, page))
    return "\n".join(up).encode() + b"\n" + labelled_pages("worker", there)


def labelled_pages(label: str, pages: Iterable[tuple[str, str]]) -> bytes:
    """One page of several; `label` tells by its value whose page a sample is from."""
    families: dict[str, _Family] = {}
    for value, page in pages:
        _add(families, f'{label}="{value}"', page)
    lines = [line for family in families.values() for line in (*family.header, *family.samples)]
    return "\n".join(lines).encode() + b"\n"


class _Family:
    """A metric: its HELP and TYPE, and its samples of all workers."""

    def __init__(self, header: Iterable[str] = ()) -> None:
        self.header = list(header)
        self.samples: list[str] = []


def _add(families: dict[str, _Family], label: str, page: str) -> None:
    """Sort the lines of one page in. Its samples follow their family's header, as the format demands."""
    family = families.setdefault("", _Family())  # of samples before any header
    seen_here: set[str] = set()
    for line in page.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            name = line.split(" ", 3)[2]
            known = name in families and name not in seen_here
            family = families.setdefault(name, _Family())
            if not known:
                seen_here.add(name)
                family.header.append(line)
        elif line and not line.startswith("#") and (sample := _labelled(line, label)) is not None:
            family.samples.append(sample)


def _labelled(line: str, label: str) -> str | None:
    """A sample with one more label; None if it is none."""
    found = _NAME.match(line)
    if found is None:
        return None
    rest = line[found.end() :]
    if rest.startswith("{"):
        separator = "" if rest.startswith("{}") else ","
        return f"{found[0]}{{{label}{separator}{rest[1:]}"
    return f"{found[0]}{{{label}}}{rest}"


LOADS_FRESH_S = 0.9
LOADS_ANSWER_S = 0.5
"""A worker that is silent for so long is shown without."""


class Loads:
    """What workers said last of their queues and KV pools."""

    def __init__(self, table: WorkerTable, upstream: Upstream, *, one_pool: bool = False) -> None:
        """`one_pool`: decode workers read prompts in the prefill workers' pools, which say how much."""
        self._table = table
        self._upstream = upstream
        self._one_pool = one_pool
        self._loads = Fresh(self._ask_all, LOADS_FRESH_S)

    async def read(self) -> Mapping[str, ServerLoad]:
        """Worker -> load, not older than a second. Workers that are not ready, or did not answer, are not in it."""
        return await self._loads.read()

    async def _ask_all(self) -> Mapping[str, ServerLoad]:
        workers = [worker for worker in self._table.workers if worker.is_ready]
        answers = await asyncio.gather(*(self._ask(worker) for worker in workers))
        return {worker.name: load for worker, load in zip(workers, answers, strict=True) if load is not None}

    async def _ask(self, worker: Worker) -> ServerLoad | None:
        body = await self._upstream.get(worker, LOADS_PATH, LOADS_ANSWER_S)
        if body is None:
            return None
        try:
            return parse_server_load(body).model_copy(update={"leases": await self._leases(worker)})
        except ValueError:  # another form than SGLang's: nothing to show
            return None

    async def _leases(self, worker: Worker) -> KvLeases | None:
        if not self._one_pool or worker.config.role == "decode":
            return None
        page = await self._upstream.get(worker, METRICS_PATH, LOADS_ANSWER_S)
        return None if page is None else parse_kv_leases(page)
