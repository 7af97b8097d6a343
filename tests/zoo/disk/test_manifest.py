from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psserve.errors import ManifestError
from psserve.zoo.disk.manifest import (
    FILE_NAME,
    NAME,
    EvaluationRecord,
    FileRecord,
    LinkRecord,
    ModuleManifest,
    TrainingRecord,
    read_manifest,
    write_manifest,
)

HASH = "0" * 64
EVALUATION = {"date": 1, "scorer": "exact", "data_hash": HASH, "items": 4, "max_tokens": 9, "how": "fleet"}

HASHES = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")
LINKS = st.builds(LinkRecord, path=st.text().map(lambda text: f"/{text}"), modified_ns=st.integers(0, 2**63))
SCALARS = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
FILES = st.builds(FileRecord, name=st.from_regex(FILE_NAME, fullmatch=True), size=st.integers(0, 2**48), blake3=HASHES)
TRAINING = st.builds(
    TrainingRecord,
    method=st.sampled_from(["cache-conditioned", "full"]),
    base_fingerprint=HASHES,
    data_hash=st.none() | HASHES,
    hyperparameters=st.dictionaries(st.text(), SCALARS, max_size=3),
    seed=st.none() | st.integers(),
    versions=st.dictionaries(st.text(), st.text(), max_size=2),
    metrics=st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=2),
)
EVALUATIONS = st.builds(
    EvaluationRecord,
    date=st.integers(0, 2**40),
    scorer=st.text(),
    data_hash=HASHES,
    items=st.integers(10, 99),
    right=st.integers(0, 10),
    max_tokens=st.integers(1, 9999),
    how=st.sampled_from(["reference", "fleet"]),
)
MANIFESTS = st.fixed_dictionaries(
    {
        "name": st.from_regex(NAME, fullmatch=True),
        "task": st.text(),
        "examples": st.lists(st.text(), max_size=2),
        "aliases": st.lists(st.from_regex(NAME, fullmatch=True), max_size=2),
        "kind": st.sampled_from(["cache-conditioned", "naive"]),
        "created": st.integers(0, 2**40),
        "notes": st.lists(st.text(), max_size=2),
        "training": st.none() | TRAINING,
        "evaluations": st.lists(EVALUATIONS, max_size=2),
        "origin": st.text(),
    }
)
FILE_LISTS = st.lists(FILES, min_size=1, max_size=2, unique_by=lambda file: file.name)


@st.composite
def manifests(draw: st.DrawFn) -> ModuleManifest:
    """Any manifest, of any store."""
    files, store = draw(FILE_LISTS), draw(st.sampled_from(["copy", "link", "delta"]))
    stored = draw(FILE_LISTS) if store == "delta" else ()
    links = {file.name: draw(LINKS) for file in files} if store == "link" else {}
    return manifest(**draw(MANIFESTS), store=store, files=files, stored=stored, links=links)


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


@given(original=manifests())
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_writing_reading_and_writing_again_changes_no_byte(
    tmp_path_factory: pytest.TempPathFactory, original: ModuleManifest
) -> None:
    path = tmp_path_factory.mktemp("manifest") / "module.toml"
    write_manifest(path, original)
    once, parsed = path.read_bytes(), read_manifest(path, ModuleManifest)
    write_manifest(path, parsed)
    assert (path.read_bytes(), parsed) == (once, original)


def test_more_right_answers_than_items_are_refused() -> None:
    with pytest.raises(ValueError, match="5 right answers of 4 items"):
        EvaluationRecord.model_validate(EVALUATION | {"right": 5})


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
