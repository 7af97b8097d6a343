"""Python programs of unknown worth, run against unit tests in a process of their own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from psserve.training import run_untrusted

TIME_LIMIT_S = 5.0
"""Of CPU time, so that a busy machine fails no program."""
PATIENCE = 6
"""How many times as long a program may take by the clock, if it waits more than it computes."""
MEMORY_LIMIT_BYTES = 512 << 20


def passes(
    source: str, tests: str, *, time_limit_s: float = TIME_LIMIT_S, memory_bytes: int = MEMORY_LIMIT_BYTES
) -> bool:
    """Whether `source` followed by `tests` runs to its end: no exception, no exit, within the limits.

    It runs in an isolated interpreter, in an empty directory and without the environment; without network where the
    system lets a user make a network namespace, and behind a guard against sockets everywhere.
    """
    passed = 100 + secrets.randbelow(100)  # programs that fail exit with 0 to 2, most of them
    request = {"source": source, "tests": tests, "cpu_s": max(1, round(time_limit_s)), "memory_bytes": memory_bytes}
    command = [*network_less(), sys.executable, "-I", "-S", "-B", str(Path(run_untrusted.__file__))]
    with tempfile.TemporaryDirectory(prefix="psserve-run-") as directory:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=directory,
            env={"PATH": os.defpath},
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(request | {"passed": passed}).encode(), timeout=PATIENCE * time_limit_s)
        except subprocess.TimeoutExpired:
            return False
        finally:
            end(process)
    return process.returncode == passed


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@cache
def network_less() -> tuple[str, ...]:
    """The command prefix that takes the network away, empty where the system does not allow it."""
    prefix = ("unshare", "--user", "--map-root-user", "--net")
    if shutil.which(prefix[0]) is None:
        return ()
    allowed = subprocess.run([*prefix, "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return prefix if allowed.returncode == 0 else ()
