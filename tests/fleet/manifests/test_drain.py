"""A pod leaves every router, whichever of them have requests on it, and however many answer."""

from __future__ import annotations

import json
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from psserve.fleet.manifests import drain
from tests.fleet.manifests.serving import serving
from tests.ports import own_ports

SILENT = "127.0.0.9"


class Router(ThreadingHTTPServer):
    """Has so many requests on the host, each time it is asked. Its first answer lacks `lost_bytes`."""

    def __init__(self, address: str, port: int, running: list[int], lost_bytes: int) -> None:
        super().__init__((address, port), _Handler)
        self.running, self.asked, self.lost_bytes = running, 0, lost_bytes


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        router = self.server
        assert isinstance(router, Router)
        router.asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        left = router.running.pop(0) if len(router.running) > 1 else router.running[0]
        body = json.dumps({"workers": 1, "running": left}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + router.lost_bytes))
        self.end_headers()
        self.wfile.write(body)
        router.lost_bytes = 0

    def log_message(self, *_: object) -> None:
        """Nothing."""


def drained(
    monkeypatch: pytest.MonkeyPatch,
    *running: list[int],
    silent: bool = False,
    lost_bytes: int = 0,
    patience_s: float = 600,
    router_end_s: float = 600,
) -> tuple[bool, list[int]]:
    """Whether a pod has drained from routers that have this many requests, and how often each was asked.

    `silent`: one more has their name and does not answer.
    """
    (port,) = own_ports(1)
    addresses = [f"127.0.0.{number}" for number in range(2, 2 + len(running))]
    monkeypatch.setattr(drain, "_addresses", lambda url: addresses + [SILENT] * silent)
    routers = [
        Router(address, port, list(counts), lost_bytes) for address, counts in zip(addresses, running, strict=True)
    ]
    with ExitStack() as stack:
        for router in routers:
            stack.enter_context(serving(router))
        done = drain.drain(f"http://routers:{port}", "pod", "key", patience_s, router_end_s, again_s=0)
    return done, [router.asked for router in routers]


def test_a_pod_waits_for_every_router(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drained(monkeypatch, [0], [2, 1, 0]) == (True, [3, 3])


def test_a_router_that_is_gone_has_no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drained(monkeypatch, [0], silent=True, router_end_s=0) == (True, [1])


def test_one_that_has_just_fallen_silent_may_have_some(monkeypatch: pytest.MonkeyPatch) -> None:
    done, (asked,) = drained(monkeypatch, [0], silent=True, patience_s=0.5)
    assert not done
    assert asked >= 1


def test_for_one_that_answers_a_pod_waits_beside_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drained(monkeypatch, [1] * 7 + [0], silent=True, router_end_s=0) == (True, [8])


def test_a_router_that_dies_in_the_middle_of_its_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drained(monkeypatch, [0], lost_bytes=1) == (True, [2])


def test_a_name_that_nobody_has_is_not_waited_for() -> None:
    assert not drain.drain("http://routers.invalid:1", "pod", "key", 600, 0, again_s=0)


def test_all_addresses_of_a_name_are_asked() -> None:
    assert drain._addresses("http://127.0.0.1:30000") == ["127.0.0.1"]
