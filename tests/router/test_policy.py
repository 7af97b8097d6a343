"""Which workers a request gets, and what the loss of one does to the others."""

from __future__ import annotations

import pytest

from psserve.errors import RequestError
from psserve.router.config import ModuleConfig, RouterConfig
from psserve.router.policy import choose
from psserve.router.workers import Worker, WorkerTable
from tests.router.conftest import make_config
from tests.router.fake_worker import Fabric, FakeWorker

MATH = ModuleConfig(name="math")


@pytest.fixture
def table() -> WorkerTable:
    """Two prefill workers; two decode workers of math, one of code; all ready."""
    config = make_config(
        FakeWorker("prefill-0", "prefill", Fabric(), port=1, bootstrap_port=2),
        FakeWorker("math-0", "decode", Fabric(), module="math", port=3),
        FakeWorker("code-0", "decode", Fabric(), module="code", port=4),
    )
    document = config.model_dump()
    document["workers"] += (
        document["workers"][0] | {"name": "prefill-1", "port": 5},
        document["workers"][1] | {"name": "math-1", "port": 6},
    )
    table = WorkerTable(RouterConfig.model_validate(document))
    for worker in table.workers:
        worker.mark_ready()
    return table


def named(table: WorkerTable, name: str) -> Worker:
    return next(worker for worker in table.workers if worker.name == name)


def test_least_busy_workers_of_the_module_are_chosen(table: WorkerTable) -> None:
    named(table, "prefill-0").running = 2
    named(table, "math-0").running = 1
    assert [worker.name for worker in choose(table, MATH)] == ["prefill-1", "math-1"]
    named(table, "math-1").running = 3
    assert [worker.name for worker in choose(table, MATH)] == ["prefill-1", "math-0"]


def test_workers_that_are_not_ready_get_nothing(table: WorkerTable) -> None:
    named(table, "prefill-1").running = named(table, "math-1").running = 9
    table.mark_down(named(table, "prefill-0"), "gone")
    table.doubt(named(table, "math-0"), "silent")
    assert [worker.name for worker in choose(table, MATH)] == ["prefill-1", "math-1"]


def test_other_decode_workers_never_stand_in(table: WorkerTable) -> None:
    for name in ("math-0", "math-1"):
        table.mark_down(named(table, name), "gone")
    with pytest.raises(RequestError, match="module 'math'") as caught:
        choose(table, MATH)
    assert (caught.value.status, caught.value.code) == (503, "module_unavailable")


def test_decode_workers_are_proven_again_once_the_last_prefill_worker_is_lost(table: WorkerTable) -> None:
    table.mark_down(named(table, "prefill-0"), "gone")
    assert all(worker.is_ready for worker in table.decodes)
    table.mark_down(named(table, "prefill-1"), "gone")
    assert {worker.state for worker in table.decodes} == {"starting"}
    with pytest.raises(RequestError):
        choose(table, MATH)
