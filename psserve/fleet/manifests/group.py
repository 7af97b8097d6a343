"""Several servers in one pod, which share its GPUs: `python -m psserve.fleet.manifests.group SERVER...`.

SERVER is a JSON object: name, command, and env, what is its own of the environment. The first that ends takes the
others with it: Kubernetes then starts the container anew, waits longer each time, and says so.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

GRACE_S = 20.0
"""SGLang may take so long to follow a SIGTERM."""
LOOK_S = 0.2


def run(servers: Sequence[dict[str, Any]], grace_s: float = GRACE_S) -> int:
    """Run them until one ends or a signal comes, then end all. Returns the exit status: 0 after a signal."""
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    names = {_start(server): server["name"] for server in servers}
    ended = None
    while not signals and ended is None:
        time.sleep(LOOK_S)
        ended = next((child for child in names if child.poll() is not None), None)
    if ended is not None:
        print(f"psserve: error: {names[ended]} ended with {ended.returncode}: ending the others", file=sys.stderr)
    _end(list(names), grace_s)
    return 0 if ended is None else 1


def _start(server: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start a server in a group of its own, with the children that SGLang spawns."""
    return subprocess.Popen(server["command"], env={**os.environ, **server["env"]}, start_new_session=True)


def _end(children: Sequence[subprocess.Popen[bytes]], grace_s: float) -> None:
    """SIGTERM, and after `grace_s` SIGKILL for whatever is left of each group."""
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + grace_s
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


if __name__ == "__main__":
    sys.exit(run([json.loads(text) for text in sys.argv[1:]]))
