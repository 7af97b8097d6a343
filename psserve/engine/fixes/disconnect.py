"""A request that ends early ends in the scheduler too, and is counted out of its adapter's requests once.

When SGLang before 0.5.20 sees that a client has left its stream, it forgets the request at once, and its own abort,
which is sent two seconds later, then finds nothing to abort: the scheduler would compute the answer to its end, for
nobody. It forgets prompts that it refuses in the same way, later releases these alone. An adapter of either would count
as in use for ever; before 0.5.22 also one whose request is aborted before it runs, while a request that a failed
transfer ends is counted out twice. Unloading an adapter with such a count would never end, and with it no later load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from psserve.engine.handover.sglang.http_process import (
    AbortedRequest,
    ClientRequest,
    RequestState,
    SentState,
    TokenizerManager,
)
from psserve.engine.hooks import Hook, Kind

_releases: set[asyncio.Task[None]] = set()
"""Under way: the event loop alone would not keep them."""


def _end_what_is_forgotten(manager: TokenizerManager, obj: ClientRequest, *rest: Any) -> None:
    """BEFORE `TokenizerManager._discard_pending_req_states(obj, ...)`. Ids that it does not know are no error to it."""
    for rid in [obj.rid] if isinstance(obj.rid, str) else obj.rid or ():
        _release_adapter(manager, rid)
        manager.abort_request(rid)


def _count_out_unsent(manager: TokenizerManager, rids: Iterable[str]) -> None:
    """BEFORE `TokenizerManager._release_req_states_on_failure`, which forgets what no scheduler has heard of."""
    for rid in rids:
        state = manager.rid_to_state.get(rid)
        if state is not None and not cast(SentState, state).dispatched:
            _release_adapter(manager, rid)


def _release_adapter(manager: TokenizerManager, rid: str) -> None:
    """Count a request out, unless SGLang did, which then knows it no longer."""
    state = manager.rid_to_state.get(rid)
    if state is not None and (adapter := state.obj.lora_id):  # none yet, where the prompt was refused before
        release = asyncio.get_running_loop().create_task(manager.lora_registry.release(adapter))
        _releases.add(release)
        release.add_done_callback(_releases.discard)


def _count_out_aborted(manager: TokenizerManager, recv_obj: AbortedRequest) -> None:
    """BEFORE `TokenizerManager._handle_abort_req`, which forgets a request that was aborted before it ran."""
    _release_adapter(manager, recv_obj.rid)


async def _count_out_once(
    original: Callable[..., Awaitable[Any]], manager: TokenizerManager, out: Any, state: RequestState, is_stream: bool
) -> Any:
    """AROUND `TokenizerManager._handle_abort_finish_reason`: who has forgotten a request has counted it out, too."""
    request = state.obj
    if request.rid in manager.rid_to_state:
        return await original(manager, out, state, is_stream)
    adapter, request.lora_path = request.lora_path, None
    try:
        return await original(manager, out, state, is_stream)
    finally:
        request.lora_path = adapter


def hooks() -> tuple[Hook, ...]:
    """The hooks that a server of either role needs with an SGLang that has their targets."""
    manager = "sglang.srt.managers.tokenizer_manager.TokenizerManager"
    return (
        Hook(f"{manager}._discard_pending_req_states", Kind.BEFORE, _end_what_is_forgotten),
        Hook(f"{manager}._handle_abort_req", Kind.BEFORE, _count_out_aborted),
        Hook(f"{manager}._handle_abort_finish_reason", Kind.AROUND, _count_out_once),
        Hook(f"{manager}._release_req_states_on_failure", Kind.BEFORE, _count_out_unsent),
    )
