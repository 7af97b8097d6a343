"""A server of chats that says the same to everybody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from psserve.contracts.router_config import VERSION_HEADER
from psserve.contracts.tls import server_context
from tests.fleet.manifests.serving import serving


@contextmanager
def answering(text: str, version: int, certificate: tuple[Path, Path]) -> Iterator[str]:
    """Its URL. It answers as a module's `version` would, shows a certificate (and has its key), and asks for a key."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            knows_key = self.headers["Authorization"] == "Bearer of-the-operator"
            body = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
            self.send_response(200 if knows_key else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header(VERSION_HEADER, str(version))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    server.socket = server_context(*certificate).wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield f"https://127.0.0.1:{server.server_port}"
