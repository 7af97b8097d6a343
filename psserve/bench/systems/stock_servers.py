"""Plain SGLang servers and their front, started, awaited and ended."""

from __future__ import annotations

import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from psserve.errors import StartError
from psserve.fleet.plan import layout
from psserve.fleet.run.logs import last_error
from psserve.fleet.run.preload import PreloadStarter
from psserve.fleet.run.process import Handle, Runnable, SubprocessStarter

_POLL_S = 0.2
_END_WITHIN_S = 20.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Listening(Runnable, Protocol):
    """A process that answers HTTP."""

    @property
    def url(self) -> str: ...


@contextlib.contextmanager
def started(processes: Sequence[Runnable], *, on_cpu: bool, folder: Path) -> Iterator[dict[str, Handle]]:
    """Start processes, and end them all at the end. On a CPU they are forked from one that has SGLang imported.

    Raises StartError.
    """
    preloaded = PreloadStarter(layout.log_path(folder, "preload")) if on_cpu else None
    starter = preloaded or SubprocessStarter()
    handles: dict[str, Handle] = {}
    try:
        for process in processes:
            process.log.unlink(missing_ok=True)
            handles[process.name] = starter.start(process)
        yield handles
    finally:
        _end(list(handles.values()))
        if preloaded is not None:
            preloaded.close()


def await_healthy(
    servers: Sequence[Listening], handles: dict[str, Handle], within_s: float, note: Callable[[str], None]
) -> None:
    """Wait until every server answers its health check. Raises StartError, naming the server that does not and why."""
    deadline = time.monotonic() + within_s
    waiting, up = list(servers), -1
    while waiting:
        for server in waiting:
            if (code := handles[server.name].poll()) is not None:
                raise _failure(server, f"exited with code {code}")
        waiting = [server for server in waiting if not _healthy(server.url)]
        if waiting and time.monotonic() > deadline:
            raise _failure(waiting[0], f"was not ready within {within_s:g} s")
        if up != (up := len(servers) - len(waiting)):
            note(f"{up} of {len(servers)} servers are up")
        time.sleep(_POLL_S if waiting else 0)


def _failure(server: Listening, what: str) -> StartError:
    return StartError(f"{server.name} {what}: {last_error(server.log)} (log: {server.log})")


def _healthy(url: str) -> bool:
    with contextlib.suppress(OSError), _OPENER.open(f"{url}/health", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _end(handles: Sequence[Handle]) -> None:
    for handle in handles:
        handle.terminate()
    deadline = time.monotonic() + _END_WITHIN_S
    while any([handle.poll() is None for handle in handles]):  # a list: every one must be asked, for that reaps it
        if time.monotonic() > deadline:
            for handle in handles:
                handle.kill()
        time.sleep(_POLL_S)
