"""Running a fleet in the background: the caller waits until it is ready, then goes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from psserve.errors import PsserveError, StartError
from psserve.fleet.plan import layout
from psserve.fleet.run.state import fleet_lock

Supervise = Callable[[Callable[[str], None]], None]
"""Runs a fleet to its end under the lock that is held already, and calls its argument with the URL once it is ready."""


def run_detached(supervise: Supervise, run: Path, notes: TextIO = sys.stderr) -> str:
    """Run `supervise` in a process of its own session, its output in a log in `run`. Returns the URL when it is ready.

    Lines that the supervisor writes meanwhile are shown on `notes`. Call it before any thread exists: it forks.

    Raises:
        AlreadyRunning: another fleet of this zoo runs.
        StartError: the fleet did not become ready; the background process has ended, or was told to.
    """
    log = layout.log_path(run, "supervisor")
    with fleet_lock(run):  # which the child inherits: until then the log may be that of a fleet that runs
        log.unlink(missing_ok=True)
        log.touch(mode=0o600)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            _background(supervise, log, write_end)
    os.close(write_end)
    try:
        verdict = _await_verdict(read_end, log, notes)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise StartError("stopped before the fleet was ready") from None
    finally:
        os.close(read_end)
    if "url" in verdict:
        return verdict["url"]
    os.waitpid(pid, 0)
    raise StartError(verdict.get("error", f"the supervisor ended without a word (log: {log})"))


def _background(supervise: Supervise, log: Path, verdict: int) -> None:
    """The child's whole life; never returns."""
    code = 1
    try:
        os.setsid()
        _redirect(log)
        supervise(lambda url: _say(verdict, {"url": url}))
        code = 0
    except PsserveError as error:
        print(f"psserve: error: {error}", file=sys.stderr, flush=True)
        _say(verdict, {"error": str(error)})
    except BaseException:  # noqa: BLE001 - a bug: log its traceback; a forked child must not unwind into the caller
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(out)


def _say(verdict: int, message: dict[str, str]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the caller has gone: nobody waits for this any more
        os.write(verdict, json.dumps(message).encode() + b"\n")


def _await_verdict(read_end: int, log: Path, notes: TextIO) -> dict[str, str]:
    """Follow the log until the child says something or ends ({})."""
    with log.open() as lines:
        while True:
            readable, _, _ = select.select([read_end], [], [], 0.2)
            for line in lines:
                notes.write(line)
            notes.flush()
            if readable:
                said = os.read(read_end, 65536)
                answer: dict[str, str] = json.loads(said) if said else {}
                return answer
