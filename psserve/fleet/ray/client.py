"""The supervisor's end of the way to a Ray cluster: starts a bridge process and speaks with it (see messages.py)."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

from psserve.contracts.programs import program
from psserve.engine.process import die_with_parent
from psserve.errors import FleetError, UsageError
from psserve.fleet.ray.messages import Event, Order, Task
from psserve.fleet.run.process import last_error, private, size

_COMMAND = program("psserve.fleet.ray.bridge")
RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""How long a process of Ray goes on without the head of its cluster."""
RECONNECT_S = 600


def require_ray() -> None:
    """Raise UsageError if Ray is not installed here."""
    if find_spec("ray") is None:
        raise UsageError("cluster.kind = \"ray\": Ray is not installed here: pip install 'psserve[ray]'")


class BridgeClient:
    """One bridge process. To be made on the main thread: the bridge ends with the thread that started it."""

    def __init__(self, task: Task, log: Path) -> None:
        """Raises OSError: it cannot be started."""
        self._log, self._log_start = log, size(log)
        with open(log, "ab", opener=private) as out:
            self._process = subprocess.Popen(
                _COMMAND,
                env={RECONNECT: str(RECONNECT_S), **os.environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                start_new_session=True,
                umask=0o077,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        assert self._process.stdin is not None  # both are pipes
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        os.set_blocking(self._from.fileno(), False)
        self._unread = b""
        self._write(task.line())

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> bool:
        """Whether it has ended; then it has nothing more to say."""
        return self._process.poll() is not None

    def send(self, order: Order) -> None:
        """Order something. A bridge that has ended takes it for nothing."""
        self._write(order.line())

    def events(self) -> Iterator[Event]:
        """What it has said since the last call; never waits."""
        with contextlib.suppress(BlockingIOError):
            while received := os.read(self._from.fileno(), 1 << 16):
                self._unread += received
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            yield Event.model_validate_json(line)

    def wait_for(self, within_s: float, what: str) -> Iterator[Event]:
        """What it says from now on, as it comes. Raises FleetError: it ended, or the time is over."""
        deadline = monotonic() + within_s
        while True:
            ended = self.ended()
            for event in self.events():
                if event.error is not None:
                    raise FleetError(event.error)
                yield event
            if ended:
                raise FleetError(f"{what}: {last_error(self._log, self._log_start)} (log: {self._log})")
            if monotonic() > deadline:
                raise FleetError(f"{what}: no answer within {within_s:g} s (log: {self._log})")
            select.select([self._from], [], [], 0.2)

    def close(self) -> None:
        """End the bridge. What it has started goes on."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._to.close()
        self._from.close()

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._to.write(line)
            self._to.flush()
