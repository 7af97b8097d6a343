"""A process that has SGLang imported already and forks servers from itself: `python -m psserve.engine.preload`.

Importing SGLang costs seconds of CPU in each of a server's three processes, most of a small fleet's start. This process
pays once; its children share the imported pages. For servers on CPU only: CUDA does not survive a fork.

It speaks JSON lines. On standard input one StartRequest a line; on standard output one event a line:

    {"event": "loaded"}                               SGLang is imported
    {"event": "started", "name": "...", "pid": 1234}  a server was forked
    {"event": "ended", "pid": 1234, "code": 0}        it ended (negative code: killed by that signal)

It ends, and with it every server, when its standard input closes or its parent ends.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import select
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import setproctitle

from psserve.engine import process, worker
from psserve.engine.process import lose_what_cannot_be_written
from psserve.engine.settings import ALLOW_UNTESTED
from psserve.engine.versions import require_supported_sglang
from psserve.errors import EngineError

_REAP_EVERY_S = 0.1


@dataclass(frozen=True)
class StartRequest:
    """Fork one server. `arguments` are the worker's, `env` its whole environment, `log` the file for its output."""

    name: str
    arguments: list[str]
    env: dict[str, str]
    log: str


def main() -> int:
    """Serve start requests until standard input closes."""
    process.die_with_parent()
    try:
        require_supported_sglang(allow_untested=os.environ.get(ALLOW_UNTESTED) == "1")
    except EngineError as error:  # before imports that another release may not have
        print(f"psserve: error: {error}", file=sys.stderr)
        return error.exit_code
    # Standard output is for events: what a package prints on import goes to standard error.
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import_sglang()
    _tell(events, event="loaded")
    pending = b""
    while True:
        _reap(events)
        if not select.select([sys.stdin], [], [], _REAP_EVERY_S)[0]:
            continue
        received = os.read(sys.stdin.fileno(), 1 << 16)
        if not received:
            return 0
        *lines, pending = (pending + received).split(b"\n")
        for line in lines:
            request = StartRequest(**json.loads(line))
            _tell(events, event="started", name=request.name, pid=_fork(request))


def import_sglang() -> None:
    """Import what every server imports, part of it late: a server's processes then share it."""
    setproctitle.getproctitle()  # finds the title's place by the environment, which a server replaces by its own
    gc.disable()  # modules are here to stay: looking through them again and again took a fifth of the time
    import sglang.launch_server
    import sglang.srt.disaggregation.decode
    import sglang.srt.disaggregation.nixl.conn
    import sglang.srt.disaggregation.prefill
    import sglang.srt.entrypoints.http_server
    import sglang.srt.entrypoints.openai.serving_responses
    import sglang.srt.managers.detokenizer_manager
    import sglang.srt.managers.scheduler
    import sglang.srt.model_executor.model_runner
    import sglang.srt.models.registry  # noqa: F401 - imports all models

    gc.collect()
    gc.freeze()  # no server's collector need look at, and so copy, what is here for good
    gc.enable()


def _fork(request: StartRequest) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _become_server(request, parent)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a bug: its traceback belongs into the server's log
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)  # never back into the loop of the parent


def _become_server(request: StartRequest, parent: int) -> int:
    process.die_with_parent(parent)
    os.setsid()
    os.umask(0o077)
    setproctitle.setproctitle(f"psserve: {request.name}")
    os.environ.clear()
    os.environ.update(request.env)
    _use_threads(request.env)
    _redirect(request.log)
    lose_what_cannot_be_written()
    # SGLang asks for spawned children, which would import it all again.
    multiprocessing.set_start_method("fork", force=True)
    multiprocessing.set_start_method = _keep_start_method
    return worker.main(request.arguments)


def _use_threads(env: Mapping[str, str]) -> None:
    """OpenMP read the preloaded process's OMP_NUM_THREADS at import; a server may have another."""
    if threads := env.get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))


def _keep_start_method(method: str | None, force: bool = False) -> None:
    """In place of `multiprocessing.set_start_method`: this process stays with fork."""


def _redirect(log: str) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(out)


def _reap(events: TextIO) -> None:
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        # While the zombie holds its pid, the group's number cannot be anyone else's: end what the server left behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(ended.si_pid, signal.SIGKILL)
        pid, status = os.waitpid(ended.si_pid, 0)
        _tell(events, event="ended", pid=pid, code=os.waitstatus_to_exitcode(status))


def _tell(events: TextIO, **event: Any) -> None:
    print(json.dumps(event), file=events, flush=True)


if __name__ == "__main__":
    sys.exit(main())
