"""Hook of a prefill server: the base computes the KV of x[:-1] and no more.

The module computes x[-1], so the base's KV there and its sampled token would be of no use to anybody. A prompt of one
token stays as it is: an empty one kills SGLang's scheduler, and the decode server drops what it gets for it.
"""

from __future__ import annotations

from psserve.engine.handover.sglang.request import TokenizedRequest
from psserve.engine.hooks import Hook, Kind
from psserve.rule import base_part, shares_nothing


def _without_last_token(scheduler: object, recv_req: TokenizedRequest) -> None:
    """BEFORE `Scheduler.handle_generate_request`."""
    if recv_req.input_ids is not None and not shares_nothing(len(recv_req.input_ids)):
        recv_req.input_ids = base_part(recv_req.input_ids)


def hooks() -> tuple[Hook, ...]:
    """The hooks that a prefill server needs on SGLang."""
    return (
        Hook(
            "sglang.srt.managers.scheduler.Scheduler.handle_generate_request",
            Kind.BEFORE,
            _without_last_token,
        ),
    )
