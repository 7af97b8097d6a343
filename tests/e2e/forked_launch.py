"""`psserve`, and the servers of a fleet, as forks of one process that has imported SGLang for the whole run.

Importing SGLang is most of a small fleet's start. psserve pays it once a fleet (psserve/engine/preload.py); here it is
paid once for all fleets of a test run: their preloaded processes are forks too. All else is as a user's fleet has it,
and fleets whose servers must import in another environment are started the plain way.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

from psserve.fleet.plan.sglang_args import OTHER_MODELS
from tests.e2e import tree_dump

_FORKING = multiprocessing.get_context("forkserver")
_READ_AGAIN = frozenset(
    (
        *("TMPDIR", "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE", "PSSERVE_NEGATIVE_CONTROL", tree_dump.ASKED_BY),
        *("SGLANG_TEST_RETRACT", "SGLANG_TEST_RETRACT_INTERVAL", "SGLANG_TEST_DISAGG_FAILURE_PROB"),
        *("SGLANG_DEBUG_MEMORY_POOL", "PSSERVE_CHECK_PURITY", "SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND"),
        *("PSSERVE_ONE_POOL", "PSSERVE_ROLE", "OMP_NUM_THREADS", OTHER_MODELS),
    )
)
"""Variables that a forked process looks at after its fork, by itself or by `_read_again`; and which models it need not
have imported, of which it has all."""


def start_importing() -> None:
    """Start the process that launches are forked from, with this environment.

    A pytest process has one such process for all its tests, and tests with servers come first (tests/conftest.py).
    """
    _FORKING.set_forkserver_preload(["tests.e2e.sglang_imported"])
    forkserver.ensure_running()


@dataclass(frozen=True)
class Launch:
    """A `psserve launch` that was started."""

    process: BaseProcess
    output: Path
    notes: Path
    """What it writes on standard error."""

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def runs_within(self, seconds: float) -> Iterator[None]:
        """So many moments until the time is over or it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.is_alive():
            yield
            time.sleep(0.1)

    def await_ready(self, within_s: float) -> str:
        """The line that it prints when the fleet is ready; fails if it says something else."""
        for _ in self.runs_within(within_s):
            if (line := self.output.read_text()).endswith("\n"):
                break
        else:
            line = self.output.read_text()
        assert line.startswith("psserve: ready at "), (line, self.notes.read_text())
        return line

    def end(self, within_s: float) -> int | None:
        """Wait for its end, and kill it if that does not come. Returns the exit status."""
        self.process.join(within_s)
        self.process.kill()
        self.process.join()
        return self.process.exitcode


def run_command(*arguments: str, within_s: float) -> tuple[int | None, str]:
    """Run `psserve` with these arguments to its end, in this process's environment: exit status, standard error.

    What it imports was imported before. A new process would take seconds for that, and minutes beside a busy fleet.
    """
    with tempfile.NamedTemporaryFile("r") as notes:
        given = (list(arguments), dict(os.environ), Path(os.devnull), Path(notes.name))
        process = _FORKING.Process(target=_psserve, args=given)
        process.start()
        process.join(within_s)
        process.kill()
        process.join()
        return process.exitcode, notes.read()


@contextlib.contextmanager
def forked(target: Callable[..., None], *arguments: Any) -> Iterator[Launch]:
    """A call in a process that has imported SGLang, killed at the end if it still runs.

    Its further arguments are this process's environment and the files of the `Launch`, for `become`.
    """
    with tempfile.TemporaryDirectory() as folder:
        output, notes = Path(folder, "output"), Path(folder, "notes")
        for file in (output, notes):
            file.touch()
        process = _FORKING.Process(target=target, args=(*arguments, dict(os.environ), output, notes))
        process.start()
        launch = Launch(process, output, notes)
        try:
            yield launch
        finally:
            launch.end(within_s=0)


def launching(zoo: Path, *arguments: str) -> contextlib.AbstractContextManager[Launch]:
    """`psserve launch` with these arguments in this process's environment; killed at the end if it still runs."""
    return forked(_launch, ["--zoo", str(zoo), "--port", "0", *arguments])


def become(environment: Mapping[str, str], output: Path, notes: Path) -> None:
    """Go on in this environment, with these files for standard output and standard error."""
    _environment_is(environment)
    for path, number in ((output, 1), (notes, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)


def _launch(arguments: Sequence[str], environment: Mapping[str, str], output: Path, notes: Path) -> None:
    from psserve.fleet.run import preload

    _start_plainly = preload.start_preloading

    def start_preloading(env: Mapping[str, str], log: IO[bytes]) -> Any:
        return ForkedPreload(env, log) if imports_alike(env) else _start_plainly(env, log)

    preload.start_preloading = start_preloading
    _psserve(["launch", *arguments], environment, output, notes)


def _psserve(arguments: Sequence[str], environment: Mapping[str, str], output: Path, notes: Path) -> None:
    from psserve.cli.main import main

    become(environment, output, notes)
    sys.argv = ["psserve", *arguments]
    main()


def imports_alike(env: Mapping[str, str]) -> bool:
    """Whether a process with this environment would have imported SGLang as it was imported here."""
    from tests.e2e.sglang_imported import ENVIRONMENT

    wanted, had = (
        {name: value for name, value in one.items() if name not in _READ_AGAIN} for one in (env, ENVIRONMENT)
    )
    return wanted == had


class StartedPreload:
    """A `ForkedPreload` for tests that start servers without a launch, in processes that have not imported SGLang.

    Where servers must import in another environment, it becomes the process that a user's would be.
    """

    def __init__(self, env: Mapping[str, str], log: IO[bytes]) -> None:
        requests, own_requests = multiprocessing.Pipe(duplex=False)
        own_events, events = multiprocessing.Pipe(duplex=False)
        with requests, own_requests, own_events, events:
            self._process = _FORKING.Process(target=_be_preloaded, args=(dict(env), requests, events, log.name))
            self._process.start()
            self.stdin = open(os.dup(own_requests.fileno()), "wb")  # noqa: SIM115 - closed by the starter
            self.stdout = open(os.dup(own_events.fileno()), "rb")  # noqa: SIM115

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()


def _be_preloaded(env: Mapping[str, str], requests: Connection, events: Connection, log: str) -> None:
    from psserve.fleet.run import preload

    plain = partial(os.execve, sys.executable, preload._COMMAND, dict(env))
    program = partial(preloaded, env) if imports_alike(env) else plain
    notes = os.open(log, os.O_WRONLY | os.O_APPEND)
    become_program(program, env, (requests.fileno(), events.fileno(), notes), os.getppid())


class ForkedPreload:
    """A preloaded process (psserve/engine/preload.py) with the part of `subprocess.Popen` that its starter uses."""

    def __init__(self, env: Mapping[str, str], log: IO[bytes]) -> None:
        requests, self_requests = os.pipe()
        self_events, events = os.pipe()
        parent = os.getpid()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            become_program(partial(preloaded, env), env, (requests, events, log.fileno()), parent)
        os.close(requests)
        os.close(events)
        self.stdin = open(self_requests, "wb")  # noqa: SIM115 - closed by the starter
        self.stdout = open(self_events, "rb")  # noqa: SIM115

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        return self._reap(0)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def become_program(
    program: Callable[[], int | None], env: Mapping[str, str], streams: Sequence[int], parent: int | None
) -> None:
    """Be a program from here on, in this environment and with these standard streams; never returns.

    `streams`: standard input, output and error. It leads a group of its own and ends with `parent`, if that is told.
    """
    from psserve.engine import process

    code: int | None = 1
    try:
        if parent is not None:
            process.die_with_parent(parent)
            os.setsid()
            os.umask(0o077)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - multiprocessing had closed it
        resource_tracker._resource_tracker._fd = None  # its pipe was closed
        _environment_is(env)
        code = program()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - a bug: its traceback belongs into the log
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def preloaded(env: Mapping[str, str]) -> int:
    """Be the preloaded process of a fleet."""
    from psserve.engine import preload

    for name in [name for name in sys.modules if name.partition(".")[0] == "prometheus_client"]:
        del sys.modules[name]  # whoever forked this may have imported it: where a server's counts go is decided there
    _read_again(env)
    return preload.main()


def _environment_is(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None


def _read_again(env: Mapping[str, str]) -> None:
    """Do what would have been done at import in this environment."""
    from sglang.srt.environ import envs
    from sglang.srt.managers import scheduler

    scheduler.TEST_RETRACT = envs.SGLANG_TEST_RETRACT.get()
    scheduler.TEST_RETRACT_INTERVAL = envs.SGLANG_TEST_RETRACT_INTERVAL.get()
    if env.get(tree_dump.ASKED_BY) == "1":
        tree_dump.install()
