"""A pod of several servers is well while all of them answer."""

from __future__ import annotations

import subprocess
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from psserve.contracts.programs import program
from psserve.fleet.manifests.health import POD_IP
from tests.fleet.manifests.serving import serving
from tests.ports import own_ports


class _Handler(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def server(port: int, status: int = 200) -> AbstractContextManager[None]:
    """Answers with this status, when it is asked after its health."""
    return serving(HTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"status": status})))


def probed(*ports: int) -> tuple[int, str]:
    """The probe's exit status, and what it says."""
    command = program("psserve.fleet.manifests.health", *map(str, ports))
    done = subprocess.run(
        command, env={POD_IP: "127.0.0.1", "http_proxy": "http://127.0.0.1:9"}, stderr=subprocess.PIPE
    )
    return done.returncode, done.stderr.decode()


def test_a_pod_whose_servers_answer_is_well() -> None:
    first, second = own_ports(2)
    with server(first), server(second):
        assert probed(first, second) == (0, "")


@pytest.mark.parametrize("silent", [0, 1])
def test_one_that_does_not_listen_fails_the_probe(silent: int) -> None:
    ports = own_ports(2)
    with server(ports[1 - silent]):
        status, said = probed(*ports)
    assert (status, "Connection refused" in said, f"port {ports[silent]}: " in said) == (1, True, True)


def test_so_does_one_that_says_that_it_is_not_well() -> None:
    first, second = own_ports(2)
    with server(first), server(second, 503):
        assert probed(first, second) == (1, f"port {second}: HTTP Error 503: Service Unavailable\n")
