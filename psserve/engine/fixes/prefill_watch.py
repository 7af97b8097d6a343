"""A decode server notices that a prefill server has ended: it connects to what took its place, and holds no KV for it.

SGLang keeps where a prefill server's processes listen, under its bootstrap address, and forgets it after two heartbeats
in a row that failed. A prefill server that comes back on its old port within those 10 s is never noticed: the decode
server would send to dead ports for good. So a thread compares what is kept with what the address says now.

Since 0.5.21 SGLang keeps the slots of a request that failed until all processes that might still write to them say that
they do not, or for 30 s. A process that has ended says nothing, and writes nothing: nobody need wait for it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import requests

from psserve.engine.handover.sglang.scheduler import KVManager, KVReceiver
from psserve.engine.hooks import Hook, Kind

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
_TIMEOUT_S = 3.0
_ARRIVED_S = 1.0
"""So long after its end a process is seen to have ended, all that it had sent has arrived."""
_ENDED = "psserve_ended"
"""When a process was seen to have ended (`time.monotonic`), in what SGLang keeps of it."""

_failed: WeakValueDictionary[int, KVReceiver] = WeakValueDictionary()
"""Room -> the receiver of a request that failed, as long as SGLang keeps its slots."""


def _watch(result: None, manager: KVManager) -> None:
    """AFTER `CommonKVManager._start_heartbeat_checker_thread`, which decode servers alone call."""
    threading.Thread(target=_run, args=(manager,), name="psserve-prefill-watch", daemon=True).start()


def _run(manager: KVManager) -> None:
    session = requests.Session()
    session.trust_env = False  # no proxy between two servers of a fleet
    while True:
        time.sleep(_EVERY_S)
        try:
            _look_once(session, manager)
        except Exception:
            logger.exception("psserve: looking for replaced prefill servers failed; trying again")


def _look_once(session: requests.Session, manager: KVManager) -> None:
    with manager.connection_lock:
        kept = {key: list(infos) for key, infos in manager.connection_pool.items()}
    replaced = set()
    for key, infos in kept.items():
        now = _named_now(session, key, infos)
        if now is not None and _endpoint(now) not in map(_endpoint, infos):
            replaced.add(address_of(key))
            _have_ended(infos)
        elif now is None:
            _have_ended([info for info in infos if is_refused(info)])
    for address in replaced:
        manager._handle_node_failure(address)  # fails what waits for the old process, and forgets it


def _have_ended(infos: list[dict[str, Any]]) -> None:
    """Note it in what every receiver of these processes' KV has."""
    for info in infos:
        info.setdefault(_ENDED, time.monotonic())


def address_of(key: str) -> str:
    """The bootstrap address in a key of SGLang's connection pool, `address_dprank_cprank_tprank`."""
    return key.rsplit("_", 3)[0]


def _named_now(session: requests.Session, key: str, infos: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What `key`'s address says of its process; None where it is silent, which may just be slow, or still starting."""
    address, dp_rank, cp_rank, tp_rank = key.rsplit("_", 3)
    query = {
        "prefill_dp_rank": dp_rank,
        "prefill_cp_rank": cp_rank,
        "target_tp_rank": tp_rank,
        "target_pp_rank": infos[0].get("pp_rank", 0),
    }
    try:
        answer = session.get(f"http://{address}/route", params=query, timeout=_TIMEOUT_S)
        return dict(answer.json()) if answer.status_code == 200 else None
    except (requests.RequestException, ValueError):
        return None


def is_refused(info: dict[str, Any]) -> bool:
    """Whether nobody listens any more where a process did. One that is frozen, or cut off, does not refuse."""
    try:
        socket.create_connection(_endpoint(info), _TIMEOUT_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _endpoint(info: dict[str, Any]) -> tuple[str, int]:
    return str(info["rank_ip"]), int(info["rank_port"])


def _remember(result: None, receiver: KVReceiver, **_: bool) -> None:
    """AFTER `CommonKVReceiver._send_abort_notification`: SGLang waits for answers from here on."""
    _failed[receiver.bootstrap_room] = receiver


def _none_writes(
    original: Callable[[KVManager, int, int], bool], manager: KVManager, bootstrap_room: int, required_acks: int
) -> bool:
    """AROUND `CommonKVManager.is_abort_release_safe`: also where all that might write to a room's slots have ended."""
    if original(manager, bootstrap_room, required_acks):
        return True
    receiver = _failed.get(bootstrap_room)
    return receiver is not None and all(map(_is_over, receiver.bootstrap_infos))


def _is_over(info: dict[str, Any]) -> bool:
    """Whether a process has ended, and what it had sent has arrived."""
    return _ENDED in info and time.monotonic() > info[_ENDED] + _ARRIVED_S


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs whatever carries its KV."""
    common = "sglang.srt.disaggregation.common.conn"
    return (
        Hook(f"{common}.CommonKVManager._start_heartbeat_checker_thread", Kind.AFTER, _watch),
        Hook(f"{common}.CommonKVReceiver._send_abort_notification", Kind.AFTER, _remember),
        Hook(f"{common}.CommonKVManager.is_abort_release_safe", Kind.AROUND, _none_writes),
    )
