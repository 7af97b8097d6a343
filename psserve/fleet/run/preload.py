"""Starting servers as forks of one process that has SGLang imported already (psserve/engine/preload.py).

On a small machine importing SGLang is most of a fleet's start. Servers on GPU are started the plain way: CUDA does not
survive a fork, and loading weights takes longer than importing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from psserve.contracts.programs import arguments_of, program
from psserve.engine.process import die_with_parent
from psserve.engine.settings import ADAPTERS, WORKER, WORKER_KEY
from psserve.errors import StartError
from psserve.fleet.plan.spec import FleetPlan
from psserve.fleet.run.process import (
    Handle,
    Runnable,
    Starter,
    SubprocessStarter,
    kill_tree,
    last_error,
    private,
    reap_group,
    signal_group,
    size,
    tail,
)

_COMMAND = program("psserve.engine.preload")
_READ_LATER = frozenset((WORKER_KEY, ADAPTERS, "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE", "OMP_NUM_THREADS"))
"""Variables that SGLang and psserve read when a server starts, not when they are imported."""


def starter_for(plan: FleetPlan) -> Starter:
    """The fitting starter for a plan's servers."""
    on_cpu = all(server.device == "cpu" for server in plan.servers)
    return PreloadStarter(plan.run_dir / "logs" / "preload.log") if on_cpu else SubprocessStarter()


class PreloadStarter:
    """Forks servers from a preloaded process, and starts everything else plainly.

    The preloaded process is started with the first server and in its environment, since SGLang reads much of it at
    import; a server with another environment is started plainly. What may differ is what SGLang reads later.
    """

    lost_hosts: frozenset[str] = frozenset()

    def __init__(self, log: Path) -> None:
        self._log = log
        self._plain = SubprocessStarter()
        self._preloaded: _Preloaded | None = None

    def start(self, spec: Runnable) -> Handle:
        arguments = arguments_of(spec.command, WORKER)
        if arguments is None:
            return self._plain.start(spec)
        if self._preloaded is None or self._preloaded.ended():
            self._preloaded = _Preloaded(spec.env, self._log)
        elif _read_at_import(spec.env) != _read_at_import(self._preloaded.env):
            return self._plain.start(spec)
        return self._preloaded.fork(spec, arguments)

    def close(self) -> None:
        """End the preloaded process, and every server that still runs with it."""
        if self._preloaded is not None:
            self._preloaded.close()
            self._preloaded = None


def _read_at_import(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in _READ_LATER}


def start_preloading(env: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A new preloaded process in this environment, spoken with over its standard input and output. Raises OSError."""
    return subprocess.Popen(
        _COMMAND,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
        umask=0o077,
        preexec_fn=partial(die_with_parent, os.getpid()),  # see Starter.start
    )


class _Preloaded:
    """One preloaded process and what it has said of the servers it forked."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        self.env = env
        self.log = log
        self.log_start = size(log)
        self.pids: dict[str, int] = {}
        self.codes: dict[int, int] = {}
        self.forked_any = False
        self._unread = b""
        try:
            with open(log, "ab", opener=private) as out:
                own = {WORKER_KEY, ADAPTERS}
                self._process = start_preloading({name: env[name] for name in env.keys() - own}, out)
        except OSError as error:
            raise StartError(f"SGLang cannot be preloaded: {error}") from error
        assert self._process.stdin is not None  # both are pipes
        assert self._process.stdout is not None
        self._requests, self._events = self._process.stdin, self._process.stdout
        os.set_blocking(self._events.fileno(), False)

    def fork(self, spec: Runnable, arguments: Sequence[str]) -> ForkedHandle:
        """Ask for a server. It is forked as soon as SGLang is imported; until then it has no pid."""
        self.pids.pop(spec.name, None)
        request = {
            "name": spec.name,
            "arguments": arguments,
            "env": dict(spec.env),
            "log": str(spec.log),
        }
        with contextlib.suppress(BrokenPipeError):  # it has ended: the handle's first poll says so
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        return ForkedHandle(self, spec)

    def ended(self) -> bool:
        """Whether the preloaded process itself has ended, and with it its servers."""
        return self._process.poll() is not None

    @property
    def code(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._events.close()

    def listen(self) -> None:
        """Take in the events that have arrived; never waits."""
        with contextlib.suppress(BlockingIOError):
            while received := os.read(self._events.fileno(), 1 << 16):
                self._unread += received
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] == "started":
                self.forked_any = True
                self.pids[event["name"]] = event["pid"]
                self.codes.pop(event["pid"], None)  # of an earlier server, whose pid it got
            elif event["event"] == "ended":
                self.codes[event["pid"]] = event["code"]


class ForkedHandle:
    """A server forked from the preloaded process, which is its parent; it leads its own group."""

    is_lost = False
    awaits_files = False

    def __init__(self, preloaded: _Preloaded, spec: Runnable) -> None:
        self._preloaded = preloaded
        self._spec = spec
        self._log_start = size(spec.log)
        self._pid: int | None = None
        self._code: int | None = None
        self._wanted_end: signal.Signals | None = None
        """What it gets as soon as it has a pid."""

    @property
    def pid(self) -> int | None:
        if self._pid is None:
            self._preloaded.listen()
            self._pid = self._preloaded.pids.get(self._spec.name)
        return self._pid

    def poll(self) -> int | None:
        if self._code is None:
            self._preloaded.listen()
            if self._wanted_end is not None and self.pid is not None:
                self._end(self._wanted_end)
            if self.pid is not None:
                self._code = self._code_once_reaped(self.pid)
            if self._code is None and self._preloaded.ended():
                self._code = self._lost()
        return self._code

    def _code_once_reaped(self, pid: int) -> int | None:
        """The exit code, once the children that the server left to us are gone too."""
        code = self._preloaded.codes.get(pid)
        return code if code is not None and reap_group(pid) else None

    def terminate(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        if self.pid is not None and self._code is None:
            kill_tree(self.pid)
        self._end(signal.SIGKILL)

    def tail(self, lines: int) -> list[str]:
        return tail(self._spec.log, lines, self._log_start)

    def memory(self) -> None:
        """Its pid tells."""

    def _end(self, number: signal.Signals) -> None:
        if self._code is not None:
            return
        if self.pid is None and self._preloaded.forked_any:
            self._wanted_end = number  # it is about to be forked, from a process that others live by
        elif self.pid is None:
            self._preloaded.kill()  # still importing: no server of this fleet exists yet
        else:
            self._wanted_end = None
            with contextlib.suppress(ProcessLookupError):
                (os.kill if number is signal.SIGTERM else signal_group)(self.pid, number)

    def _lost(self) -> int:
        """The preloaded process has ended. The kernel kills its servers; make sure, reap, and leave word in the log.

        Returns the server's own exit code, or the preloaded process's where it was never forked.
        """
        code = self._preloaded.code
        if self.pid is not None:
            signal_group(self.pid, signal.SIGKILL)
            code = -signal.SIGKILL
            with contextlib.suppress(ChildProcessError):
                code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])  # orphans fall back to the supervisor
        with contextlib.suppress(OSError), open(self._spec.log, "a", opener=private) as log:
            reason = last_error(self._preloaded.log, self._preloaded.log_start)
            log.write(f"psserve: error: the preloaded process ended: {reason} (log: {self._preloaded.log})\n")
        return code
