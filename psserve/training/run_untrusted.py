"""Runs one generated program and its tests, then exits with the status that it was told: `... run_untrusted.py < JSON`.

Stands alone and imports nothing of psserve. Limits and guard hold for honest mistakes of a model (endless loops, eaten
memory, a call into the network or the file system); they are no prison for a program that means harm.
"""

import json
import os
import resource
import sys

REFUSED = ("socket.", "subprocess.", "os.", "shutil.", "ctypes.", "pty.", "signal.", "urllib.", "ftplib.", "smtplib.")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


def limit(cpu_s: int, memory_bytes: int) -> None:
    """Bound time, memory, files written, and cores dumped."""
    limits = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))


def guard(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: refuse what a function under test has no reason to do. It cannot be taken away again."""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    if writes or (event.startswith(REFUSED) and event not in ("os.listdir", "os.scandir")):
        raise PermissionError(f"{event} is not allowed here")


def main() -> int:
    """Returns the status that says "passed": another one each time, so that no program exits with it by itself."""
    request = json.load(sys.stdin)
    passed: int = request.pop("passed")
    limit(request["cpu_s"], request["memory_bytes"])
    sys.addaudithook(guard)
    program = compile(f"{request['source']}\n\n{request['tests']}\n", "answer", "exec")
    exec(program, {"__name__": "answer"})
    return passed


if __name__ == "__main__":
    try:
        status = main()
    except BaseException:  # noqa: BLE001 (whatever an untested program raises, SystemExit too, means that it failed)
        status = 0
    os._exit(status)
