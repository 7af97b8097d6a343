"""Which pair of workers serves a sequence: the module's least busy decode worker, and the least busy prefill worker."""

from __future__ import annotations

from collections.abc import Sequence

from psserve.errors import RequestError
from psserve.router.config import ModuleConfig
from psserve.router.workers import Worker, WorkerTable

RETRY_AFTER_S = 2


def choose(table: WorkerTable, module: ModuleConfig) -> tuple[Worker, Worker]:
    """A ready (prefill, decode) pair for `module`.

    Raises RequestError (503 module_unavailable) when there is none.
    """
    decode = _least_busy(table.decodes_of(module))
    if decode is None:
        raise _unavailable(f"module {module.name!r} is not available now; retry in a moment")
    prefill = _least_busy(table.prefills)
    if prefill is None:
        raise _unavailable("the base's prefill server is not available now; retry in a moment")
    return prefill, decode


def _least_busy(workers: Sequence[Worker]) -> Worker | None:
    return min((worker for worker in workers if worker.is_ready), key=lambda worker: worker.running, default=None)


def _unavailable(message: str) -> RequestError:
    return RequestError(
        503,
        message,
        type="service_unavailable_error",
        param="model",
        code="module_unavailable",
        retry_after=RETRY_AFTER_S,
    )
