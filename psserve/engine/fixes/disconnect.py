"""A client that leaves its stream ends the request in the scheduler too.

When SGLang 0.5.18 sees the connection closed, it forgets the request at once, and its own abort, which is sent two
seconds later, then finds nothing to abort: the scheduler would compute the answer to its end, for nobody.
"""

from __future__ import annotations

from typing import Any

from psserve.engine.handover.sglang import ClientRequest, TokenizerManager
from psserve.engine.hooks import Hook, Kind


def _abort_what_is_forgotten(manager: TokenizerManager, obj: ClientRequest, *rest: Any) -> None:
    """BEFORE `TokenizerManager._discard_pending_req_states(obj, ...)`. Ids that it does not know are no error to it."""
    for rid in [obj.rid] if isinstance(obj.rid, str) else obj.rid or ():
        manager.abort_request(rid)


def hooks() -> tuple[Hook, ...]:
    """The hook that a server of either role needs."""
    target = "sglang.srt.managers.tokenizer_manager.TokenizerManager._discard_pending_req_states"
    return (Hook(target, Kind.BEFORE, _abort_what_is_forgotten),)
