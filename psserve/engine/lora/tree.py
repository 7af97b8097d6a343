"""The radix tree holds the base's KV, which is every adapter's: a request's adapter is no part of its key.

SGLang puts it there, since its own adapters write their prompts' KV themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psserve.engine.handover.sglang.request import Req
from psserve.engine.hooks import Hook, Kind


def _without_adapter_in_key(
    original: Callable[..., None], req: Req, *args: Any, lora_id: str | None = None, **kwargs: Any
) -> None:
    """AROUND `Req.__init__`."""
    original(req, *args, **kwargs)
    req.lora_id = lora_id


def hooks() -> tuple[Hook, ...]:
    """The hook that a decode server needs."""
    return (Hook("sglang.srt.managers.schedule_batch.Req.__init__", Kind.AROUND, _without_adapter_in_key),)
