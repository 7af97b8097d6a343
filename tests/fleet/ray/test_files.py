"""Fingerprints of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.fleet.ray.files import fingerprint

LARGE = 300_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    base.mkdir()
    (base / "weights").write_bytes(bytes(LARGE))
    (base / "config.json").write_text("{}")
    return base


def test_a_copy_elsewhere_is_the_same(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "base"
    other.mkdir(parents=True)
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert fingerprint(other) == fingerprint(folder)


@pytest.mark.parametrize("position", [0, LARGE - 1])
def test_a_byte_at_the_beginning_or_end_tells(folder: Path, position: int) -> None:
    before = fingerprint(folder)
    content = bytearray(LARGE)
    content[position] = 1
    (folder / "weights").write_bytes(content)
    assert fingerprint(folder) != before


def test_another_size_or_name_tells(folder: Path) -> None:
    before = fingerprint(folder)
    (folder / "weights").write_bytes(bytes(LARGE + 1))
    longer = fingerprint(folder)
    (folder / "weights").write_bytes(bytes(LARGE))
    (folder / "weights").rename(folder / "other")
    assert len({before, longer, fingerprint(folder)}) == 3


def test_what_is_not_there_has_none(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "nothing") is None
