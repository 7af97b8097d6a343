"""One tree for all adapters."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.handover.decode_server import expected

PROMPT = [7, 3, 5, 2, 9, 4, 8, 6, 1, 11, 13, 12, 17]


def matched(server: Any, adapter: str | None) -> int:
    """How many tokens of the prompt need not be sent for a request, which is then answered."""
    req = server.submit(PROMPT, 4, lora_id=adapter)
    server.preallocate()
    start: int = server.transfer_queue.queue[-1].kv_receiver.start
    server.transfer()
    server.prebuild()
    server.finish()
    assert list(req.output_ids) == expected(PROMPT, 4)
    assert req.lora_id == adapter
    return start


@pytest.mark.parametrize("second", ["b", "a", None])
def test_what_one_adapters_request_left_is_every_ones(server: Any, second: str | None) -> None:
    assert matched(server, "a") == 0
    assert matched(server, second) == (len(PROMPT) - 1) // server.page_size * server.page_size


def test_another_key_of_a_request_is_kept(server: Any) -> None:
    req = server.submit(PROMPT, lora_id="a", extra_key="tenant")
    server.run()
    assert (req.extra_key, req.lora_id) == ("tenant", "a")
