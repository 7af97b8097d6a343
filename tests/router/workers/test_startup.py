"""How long a fleet's first start is waited for."""

from __future__ import annotations

from psserve.router.workers.workers import Startup, WorkerTable
from tests.router.test_bad_input import CONFIG


def test_the_first_start_ends_with_the_patience_and_does_not_begin_anew() -> None:
    now = 5.0
    table = WorkerTable(CONFIG)
    startup = Startup(table, 900.0, lambda: now)
    math, code = table.decodes
    math.mark_ready()
    assert startup.look() == (["code"], [])
    now += 899.0
    assert startup.look() == (["code"], [])
    now += 1
    assert startup.look() == ([], ["code"])
    code.mark_ready()
    code.state = "down"
    assert startup.look() == ([], [])


def test_a_router_that_is_restarted_waits_for_nobody() -> None:
    now = 5.0
    table = WorkerTable(CONFIG)
    startup = Startup(table, 900.0, lambda: now, was_ready=True)
    assert startup.look() == ([], [])
    table.decodes[0].mark_ready()
    assert startup.look() == ([], [])
    now += 900.0
    assert startup.look() == ([], ["code"])


def test_a_module_that_comes_later_does_not_make_a_started_fleet_wait() -> None:
    table = WorkerTable(CONFIG.model_copy(update={"modules": CONFIG.modules[:1]}))
    startup = Startup(table, 900.0)
    table.decodes[0].mark_ready()
    assert startup.look() == ([], [])
    table.reconfigure(CONFIG)
    assert startup.look() == ([], ["code"])
