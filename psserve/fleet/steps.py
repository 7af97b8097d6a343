"""Long work in small steps, so that the supervisor's one thread can go on with its other duties in between.

One thread: servers are started by fork, die with the thread that forked them, and a fork among threads is no safe place
to run Python in.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from os import getpid

from psserve.engine.process import die_with_parent
from psserve.errors import FleetError

Steps = Generator[str | None, None, str]
"""Yields what there is to tell, or None to wait a moment; returns what was done, in one line."""
Waiting = Generator[str | None, None, None]
"""A part of such work that has nothing to say at its end."""


def until(holds: Callable[[], bool], seconds: float) -> Generator[None, None, bool]:
    """Wait. Returns whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        yield None
    return True


def run_command(command: Sequence[str], what: str) -> Waiting:
    """Run a command to its end; it is killed if the work is given up. FleetError has its last line on stderr."""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, getpid()),  # safe: the supervisor has one thread
        )
        try:
            while child.poll() is None:
                yield None
        finally:
            child.kill()
            child.wait()
        if child.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").split("\n")
            reason = next((line for line in reversed(lines) if line.strip()), f"exit status {child.returncode}")
            raise FleetError(f"{what}: {reason.strip()}")
