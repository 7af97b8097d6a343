"""What the router says of its servers under `/workers`, as the fleet reads it."""

from __future__ import annotations

from pydantic import BaseModel


class WorkerView(BaseModel):
    """One server as the router sees it. Fields that a newer router adds are passed over."""

    name: str
    state: str
    running: int = 0
    held: int = 0
    """Requests in flight that may still need it."""
    error: str | None = None


class RouterView(BaseModel):
    """The answer of `/workers`."""

    workers: list[WorkerView]
    serial: int = 0
    """Of the configuration that the router follows."""

    @property
    def by_name(self) -> dict[str, WorkerView]:
        return {worker.name: worker for worker in self.workers}
