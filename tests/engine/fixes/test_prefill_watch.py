from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from psserve.engine.fixes import prefill_watch
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


def is_replaced(server: HTTPServer, port: int) -> bool:
    infos = [{"rank_ip": "127.0.0.1", "rank_port": port, "pp_rank": 0, "is_dummy": False}]
    return prefill_watch.is_replaced(requests.Session(), key_of(server), infos)


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
