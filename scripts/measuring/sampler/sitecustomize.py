"""What every Python process with this folder on PYTHONPATH does: servers of a fleet sample themselves, by CPU time.

Every few milliseconds of a process's CPU time its main thread's stack is counted; while it waits, or others have the
core, that clock stands. Written to $PSSERVE_SAMPLES, a JSON file a process: stacks, and of a scheduler what its main
thread took of the CPU for how many batches.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

EVERY_S = 0.002
WRITE_EVERY = 250


class Sampler:
    """Of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stacks: Counter[str] = Counter()
        self._count = 0
        self._ran: list[tuple[int, float]] = []  # batches so far, CPU seconds so far: at first, and now
        self._busy = False

    def start(self) -> None:
        """From now on. A forked process begins anew."""
        self._stacks.clear()
        self._count = 0
        self._ran.clear()
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        if self._busy:
            return
        self._busy = True
        names = []
        while frame is not None:
            code = frame.f_code
            names.append(f"{code.co_filename.partition('site-packages/')[2] or code.co_filename}:{code.co_name}")
            if "event_loop" in code.co_name:
                batches = getattr(frame.f_locals.get("self"), "forward_ct", 0)
                self._ran[1:] = [(batches, time.thread_time())]
            frame = frame.f_back
        self._stacks[";".join(reversed(names))] += 1
        self._count += 1
        if self._count % WRITE_EVERY == 0:
            self._write()
        self._busy = False

    def _write(self) -> None:
        first, last = (self._ran[0], self._ran[-1]) if self._ran else ((0, 0.0), (0, 0.0))
        document = {"batches": last[0] - first[0], "cpu_s": last[1] - first[1], "stacks": dict(self._stacks)}
        (self._folder / f"{os.getpid()}.json").write_text(json.dumps(document))


if "psserve.engine.preload" in sys.orig_argv and "PSSERVE_SAMPLES" in os.environ:
    os.register_at_fork(after_in_child=Sampler(Path(os.environ["PSSERVE_SAMPLES"])).start)
