"""Servers that wait for files which are being sent to their hosts."""

from __future__ import annotations

from psserve.fleet.plan.spec import ProcessSpec


class Sending:
    """A process that lives, and starts nothing before it has its files; and the starter that starts it."""

    pid = None
    is_lost = False
    awaits_files = True
    lost_hosts: frozenset[str] = frozenset()

    def start(self, spec: ProcessSpec) -> Sending:
        return self

    def poll(self) -> int | None:
        return None

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def tail(self, lines: int) -> list[str]:
        return []

    def memory(self) -> None: ...

    def close(self) -> None: ...
