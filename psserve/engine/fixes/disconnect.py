"""A client that leaves its stream ends the request in the scheduler too, and uses its adapter no more.

When SGLang before 0.5.20 sees the connection closed, it forgets the request at once, and its own abort, which is sent
two seconds later, then finds nothing to abort: the scheduler would compute the answer to its end, for nobody. It
forgets prompts that it refuses in the same way. An adapter of either would count as in use for ever: unloading it would
never end, and with it no later load.
"""

from __future__ import annotations

import asyncio
from typing import Any

from psserve.engine.handover.sglang import ClientRequest, TokenizerManager
from psserve.engine.hooks import Hook, Kind

_releases: set[asyncio.Task[None]] = set()
"""Under way: the event loop alone would not keep them."""


def _end_what_is_forgotten(manager: TokenizerManager, obj: ClientRequest, *rest: Any) -> None:
    """BEFORE `TokenizerManager._discard_pending_req_states(obj, ...)`. Ids that it does not know are no error to it."""
    for rid in [obj.rid] if isinstance(obj.rid, str) else obj.rid or ():
        _release_adapter(manager, rid)
        manager.abort_request(rid)


def _release_adapter(manager: TokenizerManager, rid: str) -> None:
    """Count a request out, unless SGLang did, which then knows it no longer."""
    state = manager.rid_to_state.get(rid)
    if state is not None and (adapter := state.obj.lora_id):  # none yet, where the prompt was refused before
        release = asyncio.get_running_loop().create_task(manager.lora_registry.release(adapter))
        _releases.add(release)
        release.add_done_callback(_releases.discard)


def hooks() -> tuple[Hook, ...]:
    """The hook that a server of either role needs with an SGLang that has its target."""
    target = "sglang.srt.managers.tokenizer_manager.TokenizerManager._discard_pending_req_states"
    return (Hook(target, Kind.BEFORE, _end_what_is_forgotten),)
