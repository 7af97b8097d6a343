"""A server that speaks as much of the Hub's API as psserve uses: one model, whose files are in a directory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The model `name` at `commit`, whose files are in `directory`. A commit of a client replaces it."""

    name = "ann/tiny"
    commit = COMMIT
    directory: Path
    fetched: list[str]
    created: list[dict[str, Any]]
    refused = False
    """Whether nobody may write."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/models/{self.name}/tree"):
            self.answer_json([self.entry(file) for file in sorted(self.directory.rglob("*")) if file.is_file()])
        elif path.startswith(f"/api/models/{self.name}"):
            self.answer_json({"id": self.name, "sha": self.commit, "siblings": []})
        elif path.startswith(f"/{self.name}/resolve/{self.commit}/"):
            self.send_file(self.directory / path.partition(f"/resolve/{self.commit}/")[2])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refused:
            self.answer(b'{"error": "You may not write here"}', status=403)
        elif self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            self.answer_json({"url": f"{constants.ENDPOINT}/{self.name}"})
        elif self.path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            self.answer_json({"files": [self.upload_mode(file["path"]) for file in json.loads(body)["files"]]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            self.answer_json(
                {"transfer": "basic", "objects": [self.upload(each) for each in json.loads(body)["objects"]]}
            )
        elif self.path.startswith(f"/api/models/{self.name}/commit/"):
            self.take_commit([json.loads(line) for line in body.splitlines()])
            url = f"{constants.ENDPOINT}/{self.name}/commit/{self.commit}"
            self.answer_json({"success": True, "commitOid": self.commit, "commitUrl": url})

    def do_PUT(self) -> None:
        (self.directory.parent / Path(self.path).name).write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(b"")

    @staticmethod
    def upload_mode(path: str) -> dict[str, object]:
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False}

    @staticmethod
    def upload(file: dict[str, Any]) -> dict[str, object]:
        return file | {"actions": {"upload": {"href": f"{constants.ENDPOINT}/lfs/{file['oid']}"}}}

    def take_commit(self, operations: list[dict[str, Any]]) -> None:
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                (self.directory / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif operation["key"] == "lfsFile":
                (self.directory.parent / value["oid"]).replace(self.directory / value["path"])
            elif operation["key"] == "deletedFile":
                (self.directory / value["path"]).unlink()
        type(self).commit = hashlib.sha1(json.dumps(operations).encode()).hexdigest()

    def entry(self, file: Path) -> dict[str, object]:
        oid = hashlib.sha1(file.read_bytes()).hexdigest()
        return {"type": "file", "path": self.path_of(file), "size": file.stat().st_size, "oid": oid}

    def path_of(self, file: Path) -> str:
        return str(file.relative_to(self.directory))

    def send_file(self, file: Path) -> None:
        if self.command == "GET":
            self.fetched.append(self.path_of(file))
        etag = hashlib.sha1(file.read_bytes()).hexdigest()
        self.answer(file.read_bytes(), {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit})

    def answer_json(self, document: object) -> None:
        self.answer(json.dumps(document).encode(), {"Content-Type": "application/json"})

    def answer(self, content: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@contextmanager
def serve_hub(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A Hub whose model has the files of `directory`; the library of this process asks it."""
    hub = type("ThisHub", (Hub,), {"directory": directory, "fetched": [], "created": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another protocol, of a server that is none of ours
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", endpoint)
    close_session()
    try:
        yield hub
    finally:
        close_session()
        server.shutdown()
        server.server_close()
