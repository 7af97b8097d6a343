"""What a decode server makes of a prefill server that ends, and of one that only does not answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from psserve.engine.fixes import prefill_watch
from tests.engine.hooked import hooked
from tests.engine.release import only
from tests.waiting import PATIENCE_S


class Bootstrap(HTTPServer):
    """A prefill server's bootstrap server. `processes` maps (dp, cp, tp, pp) to (ip, port)."""

    processes: dict[tuple[str, str, str, str], tuple[str, int]]


class Handler(BaseHTTPRequestHandler):
    server: Bootstrap

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        names = ("prefill_dp_rank", "prefill_cp_rank", "target_tp_rank", "target_pp_rank")
        found = self.server.processes.get(tuple(query[name][0] for name in names))  # type: ignore[arg-type]
        self.send_response(200 if found else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"rank_ip": found[0], "rank_port": found[1]}).encode() if found else b"not yet")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def bootstrap() -> Iterator[Bootstrap]:
    server = Bootstrap(("127.0.0.1", 0), Handler)
    server.processes = {("0", "0", "0", "0"): ("127.0.0.1", 4001)}
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield server
    server.shutdown()
    server.server_close()


def key_of(server: HTTPServer) -> str:
    return f"127.0.0.1:{server.server_port}_0_0_0"


def info_of(port: int) -> dict[str, Any]:
    """What a decode server keeps of a prefill server's process."""
    return {"rank_ip": "127.0.0.1", "rank_port": port, "pp_rank": 0, "is_dummy": False}


def look(server: HTTPServer, info: dict[str, Any]) -> list[str]:
    """Look once at the one process that is known; the addresses that are forgotten for it."""
    forgotten: list[str] = []
    pool = {key_of(server): [info]}
    manager = SimpleNamespace(
        connection_lock=threading.Lock(), connection_pool=pool, _handle_node_failure=forgotten.append
    )
    prefill_watch._look_once(requests.Session(), manager)
    return forgotten


def is_replaced(server: HTTPServer, port: int) -> bool:
    return look(server, info_of(port)) == [f"127.0.0.1:{server.server_port}"]


def test_the_same_process_is_not_replaced(bootstrap: Bootstrap) -> None:
    assert not is_replaced(bootstrap, 4001)


def test_another_port_behind_the_address_is_another_process(bootstrap: Bootstrap) -> None:
    assert is_replaced(bootstrap, 4000)


def test_one_that_is_still_starting_is_not_judged(bootstrap: Bootstrap) -> None:
    bootstrap.processes = {}
    assert not is_replaced(bootstrap, 4000)


def test_one_that_does_not_answer_is_not_judged(bootstrap: Bootstrap) -> None:
    bootstrap.server_close()
    assert not is_replaced(bootstrap, 4000)


def test_address_may_hold_underscores() -> None:
    assert prefill_watch.address_of("my_host:80_0_1_2") == "my_host:80"


def test_what_was_kept_of_a_replaced_process_is_forgotten(
    bootstrap: Bootstrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill_watch, "_EVERY_S", 0.01)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody's: no proxy stands between two servers
    forgotten, done = [], threading.Event()
    pool = {key_of(bootstrap): [{"rank_ip": "127.0.0.1", "rank_port": 4000, "pp_rank": 0}]}

    def forget(address: str) -> None:
        forgotten.append(address)
        pool.clear()
        done.set()

    manager = SimpleNamespace(connection_lock=threading.Lock(), connection_pool=pool, _handle_node_failure=forget)
    prefill_watch._watch(None, manager)
    assert done.wait(PATIENCE_S)
    assert forgotten == [f"127.0.0.1:{bootstrap.server_port}"]


@pytest.fixture
def process() -> Iterator[socket.socket]:
    """A prefill server's process, as far as it can be seen: it listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def held(process: socket.socket) -> Iterator[Any]:
    """The receiver of a request that failed, whose slots that process might still write to."""
    with hooked(prefill_watch.hooks()):
        from sglang.srt.disaggregation.nixl.conn import NixlKVManager, NixlKVReceiver

        manager, receiver = object.__new__(NixlKVManager), object.__new__(NixlKVReceiver)
        manager.enable_deferred_decode_kv_release = True
        manager._deferred_abort_ack_tracker, manager._deferred_abort_generation = {}, 0
        manager.local_ip, manager.rank_port = "127.0.0.1", 1
        receiver.kv_mgr, receiver.bootstrap_room = manager, 7
        receiver.abort_notified, receiver.init_time, receiver._abort_generation = False, 1.0, None
        receiver.bootstrap_infos = [info_of(process.getsockname()[1])]
        receiver.ensure_abort_notified()
        yield receiver
        NixlKVReceiver.close_all_sockets()


def is_free(held: Any) -> bool:
    """Whether SGLang would give the slots to another request."""
    return bool(held.kv_mgr.is_abort_release_safe(held.bootstrap_room, len(held.bootstrap_infos)))


@only(since="0.5.21")
def test_slots_are_free_when_what_might_write_to_them_has_ended_and_its_last_bytes_are_there(
    held: Any, process: socket.socket, bootstrap: Bootstrap, clock: list[float]
) -> None:
    bootstrap.server_close()
    process.close()
    assert look(bootstrap, held.bootstrap_infos[0]) == []
    assert not is_free(held)
    clock[0] = 0.9
    look(bootstrap, held.bootstrap_infos[0])  # it was seen before
    clock[0] = 1.1
    assert is_free(held)


@only(since="0.5.21")
def test_slots_are_kept_while_a_silent_process_might_write_to_them(
    held: Any, bootstrap: Bootstrap, clock: list[float]
) -> None:
    bootstrap.server_close()
    look(bootstrap, held.bootstrap_infos[0])
    clock[0] = 100.0
    assert not is_free(held)
    held.kv_mgr.note_abort_ack(7, 0, *([held._abort_generation] if held._abort_generation else []))
    assert is_free(held)


@only(since="0.5.21")
def test_slots_are_free_when_another_process_took_the_place(
    held: Any, bootstrap: Bootstrap, clock: list[float]
) -> None:
    """Also where somebody listens on the old one's port by now."""
    assert look(bootstrap, held.bootstrap_infos[0]) == [f"127.0.0.1:{bootstrap.server_port}"]
    clock[0] = 1.1
    assert is_free(held)


@only(since="0.5.21")
def test_slots_are_kept_while_one_of_several_processes_runs(
    held: Any, process: socket.socket, bootstrap: Bootstrap, clock: list[float]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        held.bootstrap_infos.append(info_of(other.getsockname()[1]))
        bootstrap.server_close()
        process.close()
        for info in held.bootstrap_infos:
            look(bootstrap, info)
        clock[0] = 1.1
        assert not is_free(held)
