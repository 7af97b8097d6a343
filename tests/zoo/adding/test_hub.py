"""Models of the Hub: from a cache made here, and from a server here (tests/zoo/hub.py)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from psserve.errors import UsageError, ZooError
from psserve.zoo import Zoo
from tests.zoo.hub import COMMIT, Hub, serve_hub


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


@pytest.fixture
def hub(cache: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A Hub that has ann/tiny."""
    with serve_hub(checkpoint, monkeypatch) as hub:
        yield hub


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


def test_nothing_in_folders_is_downloaded(hub: type[Hub], tmp_path: Path) -> None:
    (hub.directory / "onnx").mkdir()
    (hub.directory / "onnx" / "model.safetensors").write_text("another's")
    Zoo.create(tmp_path / "zoo", "ann/tiny")
    assert "model.safetensors" in hub.fetched
    assert "onnx/model.safetensors" not in hub.fetched


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


def test_a_revision_may_stand_behind_the_id(hub: type[Hub], cache: Path, zoo: Zoo) -> None:
    module = zoo.add("math", f"ann/tiny@{COMMIT}", allow_naive=True)
    assert module.origin == f"ann/tiny@{COMMIT[:12]}"
    assert (cache / "models--ann--tiny" / "snapshots" / COMMIT).is_dir()


def test_two_revisions_are_refused(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match="--revision v2 is another one"):
        zoo.add("math", "ann/tiny@v1", allow_naive=True, revision="v2")
