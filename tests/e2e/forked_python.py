"""Scripts that start psserve again and again: all that they start is a fork of one process that has imported SGLang.

A script's own parts, psserve's commands and the preloaded processes of fleets are Python programs, which begin here
behind their imports (tests/e2e/forked_launch.py). All else is started as ever, and so are fleets with another
environment.
"""

from __future__ import annotations

import inspect
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from psserve.contracts.programs import arguments_of
from tests.e2e.forked_launch import become, become_program, imports_alike, preloaded

Program = Callable[[], int | None]
_start = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


def run_script(
    script: Path, arguments: Sequence[str], environment: Mapping[str, str], output: Path, notes: Path
) -> None:
    """Be this script: what `forked_launch.forked` is to call."""
    import torch

    become(environment, output, notes)
    torch.set_num_threads(1)  # threads of a library's do not survive a fork
    subprocess.Popen = ForkedPython  # type: ignore[misc]
    _script(script, arguments)


class ForkedPython(subprocess.Popen[Any]):
    """`subprocess.Popen`, but for what `_program` knows."""

    def _execute_child(self, *given: Any) -> None:
        call = _start.bind(self, *given).arguments
        env = dict(os.environ if call["env"] is None else call["env"])
        program = _program(call["args"], env)
        if program is None:
            super()._execute_child(*given)  # type: ignore[misc]
            return
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            become_program(partial(_begin, program, call), env, _streams(call), None)
        self._child_created = True
        self._close_pipe_fds(*(call[name] for name in _PIPES))  # type: ignore[attr-defined]


_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def _streams(call: Mapping[str, Any]) -> tuple[int, ...]:
    """Standard input, output and error of the new process: where none is given, those of this one."""
    given = (call["p2cread"], call["c2pwrite"], call["errwrite"])
    return tuple(own if stream == -1 else stream for own, stream in enumerate(given))


def _begin(program: Program, call: Mapping[str, Any]) -> int | None:
    """What happens between a fork and a program's beginning."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if call["start_new_session"]:
        os.setsid()
    if call["umask"] >= 0:
        os.umask(call["umask"])
    if call["cwd"] is not None:
        os.chdir(call["cwd"])
    if call["preexec_fn"] is not None:
        call["preexec_fn"]()
    return program()


def _program(command: Any, env: Mapping[str, str]) -> Program | None:
    """What a command runs here; None where a new process must import it."""
    if arguments_of(command, "psserve.engine.preload") is not None:
        return partial(preloaded, env) if imports_alike(env) else None
    match [str(part) for part in command]:
        case [sys.executable, "-P", "-c", code, *arguments] if "psserve.cli.main" in code:
            return partial(_code, code, arguments)
        case [sys.executable, script, *arguments] if script.endswith(".py"):
            return partial(_script, Path(script), arguments)
    return None


def _code(code: str, arguments: Sequence[str]) -> None:
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})


def _script(script: Path, arguments: Sequence[str]) -> None:
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
