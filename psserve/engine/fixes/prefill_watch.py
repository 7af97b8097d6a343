"""A decode server notices that a prefill server was replaced, and connects anew.

SGLang keeps where a prefill server's processes listen, under its bootstrap address, and forgets it after two heartbeats
in a row that failed. A prefill server that comes back on its old port within those 10 s is never noticed: the decode
server would send to dead ports for good. So a thread compares what is kept with what the address says now.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import requests

from psserve.engine.handover.sglang.scheduler import KVManager
from psserve.engine.hooks import Hook, Kind

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
_TIMEOUT_S = 3.0


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
    for address in {address_of(key) for key, infos in kept.items() if is_replaced(session, key, infos)}:
        manager._handle_node_failure(address)  # fails what waits for the old process, and forgets it


def address_of(key: str) -> str:
    """The bootstrap address in a key of SGLang's connection pool, `address_dprank_cprank_tprank`."""
    return key.rsplit("_", 3)[0]


def is_replaced(session: requests.Session, key: str, infos: list[dict[str, Any]]) -> bool:
    """Whether `key`'s address names another process now than those in `infos`. One that is silent may just be slow."""
    address, dp_rank, cp_rank, tp_rank = key.rsplit("_", 3)
    query = {
        "prefill_dp_rank": dp_rank,
        "prefill_cp_rank": cp_rank,
        "target_tp_rank": tp_rank,
        "target_pp_rank": infos[0].get("pp_rank", 0),
    }
    try:
        answer = session.get(f"http://{address}/route", params=query, timeout=_TIMEOUT_S)
        now = answer.json() if answer.status_code == 200 else None
    except (requests.RequestException, ValueError):
        return False
    return now is not None and _endpoint(now) not in map(_endpoint, infos)


def _endpoint(info: dict[str, Any]) -> tuple[str, int]:
    return str(info["rank_ip"]), int(info["rank_port"])


def hooks() -> tuple[Hook, ...]:
    """The hook that a decode server needs whatever carries its KV."""
    target = "sglang.srt.disaggregation.common.conn.CommonKVManager._start_heartbeat_checker_thread"
    return (Hook(target, Kind.AFTER, _watch),)
