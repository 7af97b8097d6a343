"""The changes a fleet was asked for, made one after the other."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from psserve.errors import PsserveError
from psserve.fleet.steps import Steps


class Asker(Protocol):
    """Who waits for a change. It may have gone: the calls return at once and never fail."""

    def progress(self, text: str) -> None:
        """Something happened."""

    def done(self, text: str) -> None:
        """The change is made."""

    def failed(self, text: str) -> None:
        """It is not, and will not be."""


@dataclass
class Job:
    """One change. It is begun when its turn comes, so that it sees what the ones before have left."""

    title: str
    begin: Callable[[], Steps]
    asker: Asker


class Jobs:
    """Waiting changes and the one in progress."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._waiting: deque[Job] = deque()
        self._job: Job | None = None
        self._steps: Steps | None = None

    @property
    def busy(self) -> bool:
        return self._steps is not None

    def put(self, job: Job) -> None:
        before = [one.title for one in (self._job, *self._waiting) if one]
        self._waiting.append(job)
        if before:
            job.asker.progress(f"{job.title} waits for: {', '.join(before)}")

    def step(self) -> None:
        """Go on with the present change, or begin the next one."""
        if self._steps is None:
            if not self._waiting:
                return
            self._job = self._waiting.popleft()
            self._steps = self._job.begin()
        assert self._job is not None
        try:
            said = next(self._steps)
        except StopIteration as end:
            self._end(self._job.asker.done, str(end.value))
        except (PsserveError, OSError) as error:
            self._end(self._job.asker.failed, str(error))
        except Exception:  # noqa: BLE001 - a bug in a change must not end a fleet that serves
            sys.excepthook(*sys.exc_info())
            self._end(self._job.asker.failed, "a bug in psserve: the supervisor's log has the traceback")
        else:
            for line in (said or "").splitlines():
                self._note(line)
                self._job.asker.progress(line)

    def _end(self, tell: Callable[[str], None], text: str) -> None:
        assert self._job is not None
        self._note(f"{self._job.title}: {text}")
        self._job = self._steps = None
        tell(text)

    def give_up(self, reason: str) -> None:
        """Break off what is in progress, and refuse what waits."""
        if self._steps is not None:
            self._steps.close()
        for job in (self._job, *self._waiting):
            if job is not None:
                job.asker.failed(reason)
        self._waiting.clear()
        self._job = self._steps = None
