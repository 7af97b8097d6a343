"""An adapter goes when nothing in the scheduler runs with it, and not before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sglang.srt.disaggregation.decode import DecodeRequest, SchedulerDisaggregationDecodeMixin
from sglang.srt.lora.lora_registry import LoRARef
from sglang.srt.managers.scheduler import Scheduler

from tests.engine.handover.decode_server import Receiver

PROMPT = [7, 3, 5, 2, 9, 4, 8, 6, 1]


@pytest.fixture
def unloaded(server: Any) -> list[str]:
    """The ids of adapters that SGLang was let unload. Of the server's own: `a`, as `math@1`."""
    done: list[str] = []

    def unload(request: Any) -> Any:
        del server.tp_worker.model_runner.lora_manager.lora_refs[request.lora_id]
        done.append(request.lora_id)
        return SimpleNamespace(success=True)

    server.tp_worker.unload_lora_adapter = unload
    server.tp_worker.model_runner.lora_manager.lora_refs = {
        "a": LoRARef("a", "math@1", "/a", False),
        "b": LoRARef("b", "code@1", "/b", False),
    }
    server.unload_lora_adapter = lambda request: Scheduler.unload_lora_adapter(server, request)
    server.polling_count, server.polling_interval = 0, 1_000  # transfers are the test's to make
    return done


def ask(server: Any, adapter: str = "a") -> Any:
    return server.unload_lora_adapter(SimpleNamespace(lora_id=adapter, lora_name="math@1"))


def loop(server: Any) -> None:
    SchedulerDisaggregationDecodeMixin.process_decode_queue(server)


def test_an_adapter_that_is_not_used_goes_at_once(server: Any, unloaded: list[str]) -> None:
    server.submit(PROMPT, lora_id="b")
    assert ask(server).success
    assert unloaded == ["a"]
    server.run()


def test_one_that_runs_goes_when_its_requests_have_ended(server: Any, unloaded: list[str]) -> None:
    server.submit(PROMPT, 3, lora_id="a")
    server.admit()
    answer = ask(server)
    assert answer.success
    assert answer.loaded_adapters == {"code@1": "/b"}
    loop(server)
    assert unloaded == []
    server.finish()
    loop(server)
    loop(server)
    assert unloaded == ["a"]


def test_its_name_is_free_meanwhile(server: Any, unloaded: list[str]) -> None:
    server.submit(PROMPT, 3, lora_id="a")
    server.admit()
    ask(server)
    refs = server.tp_worker.model_runner.lora_manager.lora_refs
    refs["c"] = LoRARef("c", "math@1", "/a", False)
    server.finish()
    loop(server)
    assert unloaded == ["a"]
    assert set(refs) == {"b", "c"}


@pytest.mark.parametrize("place", ["queue", "pending", "transfer", "waiting", "retracted", "held", "grammar", "step"])
def test_wherever_its_request_is(server: Any, unloaded: list[str], place: str) -> None:
    req = SimpleNamespace(lora_id="a")
    queued = DecodeRequest(req, Receiver())
    lists: dict[str, Any] = {
        "queue": (server.queue.queue, queued),
        "pending": (server.queue.pending_reqs, queued),
        "transfer": (server.transfer_queue.queue, queued),
        "waiting": (server.waiting_queue, req),
        "retracted": (server.queue.retracted_queue, req),
        "held": (server.queue.held_rebootstrap_reqs, req),
        "grammar": (server.grammar_manager.grammar_queue, req),
        "step": (vars(server).setdefault("result_queue", []), (SimpleNamespace(reqs=[req]), None)),
    }
    where, what = lists[place]
    where.append(what)
    ask(server)
    assert unloaded == []
    where.remove(what)
    loop(server)
    assert unloaded == ["a"]


def test_the_drainer_forgets_it(server: Any, unloaded: list[str]) -> None:
    server.submit(PROMPT, 3, lora_id="a")
    server.run()
    assert "a" in server.lora_drainer.adapter_to_stats
    ask(server)
    assert "a" not in server.lora_drainer.adapter_to_stats
