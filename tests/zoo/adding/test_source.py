from __future__ import annotations

import os
from pathlib import Path

import pytest

from psserve.errors import UsageError, ZooError
from psserve.zoo.adding.source import find_source, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub cache that holds one model, some/model."""
    cache = tmp_path / "cache"
    repository = cache / "models--some--model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (snapshot / "model.safetensors").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot


def test_a_hub_id_in_the_cache_is_pinned_to_its_commit(snapshot: Path, tmp_path: Path) -> None:
    source = find_source("some/model", tmp_path / "zoo")
    assert (source.text, source.revision, source.path) == ("some/model", COMMIT, snapshot)


def test_a_pinned_hub_id_is_found_again(snapshot: Path, tmp_path: Path) -> None:
    assert resolve("some/model", COMMIT, tmp_path / "zoo") == snapshot


def test_another_commit_is_not_taken_instead(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="hf download"):
        resolve("some/model", "f" * 40, tmp_path / "zoo")


def test_a_directory_in_the_zoo_is_kept_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "zoo" / "base").mkdir(parents=True)
    assert find_source(tmp_path / "zoo" / "base", tmp_path / "zoo").text == "base"


def test_a_directory_elsewhere_is_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_source("model", tmp_path / "zoo").text == str(tmp_path / "model")


@pytest.mark.parametrize("wanted", ["nowhere", "./no/where", "a/b/c", "~/nowhere"])
def test_what_is_neither_is_an_error(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(ZooError, match="no such directory"):
        find_source(wanted, tmp_path / "zoo")


def test_a_path_that_no_manifest_can_hold_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"model\xff")
    directory.mkdir()
    with pytest.raises(UsageError, match=r"model\\udcff': not UTF-8"):
        find_source(directory, tmp_path / "zoo")
