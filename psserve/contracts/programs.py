"""How psserve's own programs are started, on this machine and on others, and how small ones end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from psserve.errors import PsserveError


def program(module: str, *arguments: str, python: str | None = None) -> tuple[str, ...]:
    """The command that runs a module of psserve by `python`, else by ours, whatever lies in the folder of its start.

    -P, which Python's own new processes take over: otherwise everything is looked for in that folder first, and a
    user's `random.py` there would be imported in place of Python's.
    """
    return (python or sys.executable, "-P", "-m", module, *arguments)


def arguments_of(command: Sequence[str], module: str) -> tuple[str, ...] | None:
    """The arguments in a command that `program` made for this module; None if it is another one."""
    made = program(module)[1:]
    return tuple(command[1 + len(made) :]) if tuple(command[1 : 1 + len(made)]) == made else None


def exit_status(work: Callable[[], None]) -> int:
    """Do a small program's work. Returns its exit status; the last line on stderr says what went wrong."""
    try:
        work()
    except (PsserveError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
