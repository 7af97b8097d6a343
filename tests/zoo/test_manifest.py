from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.errors import ManifestError
from psserve.zoo.manifest import FileRecord, ModuleManifest, read_manifest, write_manifest

HASH = "0" * 64


def manifest(**fields: object) -> ModuleManifest:
    required = {"name": "math", "kind": "naive", "created": 1, "base_fingerprint": HASH, "files": ()}
    return ModuleManifest.model_validate(required | fields)


def written(path: Path, extra: str = "") -> Path:
    file = path / "module.toml"
    write_manifest(file, manifest())
    file.write_text(extra + file.read_text())
    return file


@given(task=st.text(), examples=st.lists(st.text(), max_size=3))
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, task: str, examples: list[str]
) -> None:
    path = tmp_path_factory.mktemp("manifest") / "module.toml"
    file = FileRecord(name="model.safetensors", size=3, blake3=HASH)
    original = manifest(task=task, examples=tuple(examples), files=(file,))
    write_manifest(path, original)
    assert read_manifest(path, ModuleManifest) == original


def test_only_the_manifest_is_left_after_writing(tmp_path: Path) -> None:
    written(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["module.toml"]


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"module\.toml: colour: Extra inputs"):
        read_manifest(written(tmp_path, 'colour = "red"\n'), ModuleManifest)


def test_a_newer_schema_asks_for_an_upgrade(tmp_path: Path) -> None:
    file = written(tmp_path)
    file.write_text(file.read_text().replace("schema_version = 1", "schema_version = 2"))
    with pytest.raises(ManifestError, match="newer than this psserve knows"):
        read_manifest(file, ModuleManifest)


@pytest.mark.parametrize("content", [b"", b"name = ", b"\xff\xfe", b"name = 3", b"a = 1\na = 2"])
def test_a_damaged_manifest_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "module.toml"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"module\.toml"):
        read_manifest(path, ModuleManifest)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("manifest") / "module.toml"
    path.write_bytes(content)
    with pytest.raises(ManifestError):
        read_manifest(path, ModuleManifest)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", ".hidden", ""])
def test_a_recorded_file_cannot_lie_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        FileRecord(name=name, size=0, blake3=HASH)
