"""No more adapters in a batch than it has slots for; here that is two."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.handover.decode_server import expected
from tests.engine.lora.conftest import SLOTS

PROMPTS = [[number, 40, 41, 42, 43, 44] for number in range(1, 8)]


def submit(server: Any, *adapters: str | None, count: int = 3) -> list[Any]:
    return [server.submit(prompt, count, lora_id=adapter) for prompt, adapter in zip(PROMPTS, adapters, strict=False)]


def finish(server: Any) -> None:
    """Run until all are answered that wait."""
    while server.waiting_queue or not server.running_batch.is_empty():
        server.finish()
        server.prebuild()


def running(server: Any) -> list[str | None]:
    return [req.lora_id for req in server.running_batch.reqs]


def test_adapters_that_have_no_slot_wait_for_one(server: Any) -> None:
    submit(server, "a", "b", "c", "a", None)
    server.admit()
    assert running(server) == ["a", "b", "a"]
    assert [req.lora_id for req in server.waiting_queue] == ["c", None]
    finish(server)


def test_all_are_answered_in_turn(server: Any) -> None:
    reqs = submit(server, "a", "b", "c", "d", None, "a", "c")
    server.admit()
    for _ in range(100):
        assert len(set(running(server))) <= SLOTS
        server.step()
        server.running_batch.filter_batch()
        server.prebuild()
    assert [list(req.output_ids) for req in reqs] == [expected(prompt, 3) for prompt in PROMPTS]


def test_the_base_takes_a_slot(server: Any) -> None:
    submit(server, None, "a", "b")
    server.admit()
    assert running(server) == [None, "a"]
    finish(server)


def test_an_adapter_that_runs_takes_more_requests(server: Any) -> None:
    submit(server, "a", "b", count=8)
    server.admit()
    more = server.submit(PROMPTS[5], 2, lora_id="b")
    server.admit()
    assert more in server.running_batch.reqs


def test_an_adapter_that_others_wait_too_long_for_takes_no_more_requests(server: Any) -> None:
    submit(server, "a", "b", "c", count=8)
    server.admit()
    server.lora_drainer.max_wait_time_secs = -1.0  # whoever waits at all starves
    late = server.submit(PROMPTS[5], 50, lora_id="a")
    server.admit()
    assert late in server.waiting_queue
    server.finish()
    server.prebuild()
    assert "c" in running(server)
    server.lora_drainer.max_wait_time_secs = 1e9
    finish(server)


@pytest.mark.parametrize("adapters", [(), ("a",)])
def test_nothing_that_waits_is_nothing_to_look_at(server: Any, adapters: tuple[str, ...]) -> None:
    submit(server, *adapters)
    server.admit()
    assert server.prebuild() is None
