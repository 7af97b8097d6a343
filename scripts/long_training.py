"""What the scripts that train for hours have in common: how they begin, say what happens, and end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from psserve.errors import PsserveError
from psserve.training.packages import check_packages, quiet_packages

BEGIN = time.monotonic()


def note(text: str) -> None:
    """Say what happens, with the minutes since the start."""
    print(f"{(time.monotonic() - BEGIN) / 60:5.1f} min  {text}", file=sys.stderr, flush=True)


def exit_status(job: Callable[[], None]) -> int:
    """Do the job, once the packages are there. An error or Ctrl-C becomes a sentence and an exit status."""
    try:
        check_packages()
        quiet_packages()
        job()
    except PsserveError as error:
        print(f"psserve: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("psserve: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0
