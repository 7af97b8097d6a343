"""Models of the Hub: from a cache made here, and from a server here that speaks as much of the Hub's API as is used."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from psserve.errors import ZooError
from psserve.zoo import Zoo

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.fixture
def cached(cache: Path, checkpoint: Path) -> Path:
    """The cache, with ann/tiny in it."""
    repository = cache / "models--ann--tiny"
    shutil.copytree(checkpoint, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


class Hub(BaseHTTPRequestHandler):
    """The one model ann/tiny, whose files are in `directory`."""

    directory: Path
    fetched: list[str]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/ann/tiny/tree"):
            self.answer(json.dumps([self.entry(file) for file in sorted(self.directory.iterdir())]).encode())
        elif path.startswith("/api/models/ann/tiny"):
            self.answer(json.dumps({"id": "ann/tiny", "sha": COMMIT, "siblings": []}).encode())
        elif path.startswith(f"/ann/tiny/resolve/{COMMIT}/"):
            self.send_file(self.directory / path.rpartition("/")[2])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def entry(self, file: Path) -> dict[str, object]:
        oid = hashlib.sha1(file.read_bytes()).hexdigest()
        return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": oid}

    def send_file(self, file: Path) -> None:
        if self.command == "GET":
            self.fetched.append(file.name)
        etag = hashlib.sha1(file.read_bytes()).hexdigest()
        self.answer(file.read_bytes(), {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def answer(self, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def hub(cache: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A Hub that has ann/tiny."""

    class ThisHub(Hub):
        directory = checkpoint
        fetched: list[str] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), ThisHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", endpoint)
    close_session()
    yield ThisHub
    close_session()
    server.shutdown()
    server.server_close()


def test_a_zoo_of_a_cached_model_is_pinned_and_opens_again(cached: Path, tmp_path: Path) -> None:
    zoo = Zoo.create(tmp_path / "zoo", "ann/tiny")
    assert (zoo.base.name, zoo.base.source, zoo.base.revision) == ("tiny", "ann/tiny", COMMIT)
    assert Zoo.open(tmp_path / "zoo").base.path == cached


def test_a_zoo_whose_model_left_the_cache_says_how_to_get_it_back(cached: Path, tmp_path: Path) -> None:
    Zoo.create(tmp_path / "zoo", "ann/tiny")
    shutil.rmtree(cached)
    with pytest.raises(ZooError, match=rf"run `hf download ann/tiny --revision {COMMIT}`"):
        Zoo.open(tmp_path / "zoo")


def test_offline_a_model_that_is_not_cached_is_an_error_with_a_way_out(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"HF_HUB_OFFLINE forbids.*`hf download ann/tiny --revision v1`"):
        Zoo.create(tmp_path / "zoo", "ann/tiny", revision="v1")
    assert not (tmp_path / "zoo").exists()


def test_offline_a_snapshot_without_weights_is_not_taken(cached: Path, tmp_path: Path) -> None:
    """Other programs download single files."""
    (cached / "model.safetensors").unlink()
    with pytest.raises(ZooError, match="not in the local Hub cache"):
        Zoo.create(tmp_path / "zoo", "ann/tiny")


def test_a_module_can_be_of_the_hub(zoo: Zoo, cached: Path) -> None:
    module = zoo.add("math", "ann/tiny", allow_naive=True, store="link")
    assert module.origin == f"ann/tiny@{COMMIT[:12]}"
    assert module.links["model.safetensors"].path == str(cached / "model.safetensors")


def test_what_is_not_cached_is_downloaded_without_pickles_and_code(hub: type[Hub], tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "modeling.py", "README.md"):
        (hub.directory / name).write_text("x")
    zoo = Zoo.create(tmp_path / "zoo", "ann/tiny")
    assert zoo.base.revision == COMMIT
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(hub.fetched)
    assert not {"pytorch_model.bin", "modeling.py", "README.md"} & set(hub.fetched)


def test_what_is_cached_is_not_asked_for(hub: type[Hub], cached: Path, tmp_path: Path) -> None:
    Zoo.create(tmp_path / "zoo", "ann/tiny")
    assert hub.fetched == []


def test_a_model_that_the_hub_does_not_have_is_said(hub: type[Hub], tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"ann/other: the Hub refuses it: .*404.*check the id"):
        Zoo.create(tmp_path / "zoo", "ann/other")


def test_no_network_is_said(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    with pytest.raises(ZooError, match=r"cannot be downloaded: .*: check the network"):
        Zoo.create(tmp_path / "zoo", "ann/tiny")
