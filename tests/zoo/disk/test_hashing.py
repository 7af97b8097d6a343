from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3

from psserve.zoo.disk.manifest import CHUNK, hash_file, record_files
from psserve.zoo.disk.progress import Progress


class Heard(Progress):
    """Remembers what was reported."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.bytes = 0

    def stage(self, what: str, size: int) -> None:
        self.stages.append((what, size))

    def advance(self, size: int) -> None:
        self.bytes += size


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1])
def test_a_file_has_the_hash_of_its_content(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert hash_file(tmp_path / "file") == blake3(content[:size]).hexdigest()


def test_records_have_name_size_and_hash_and_every_byte_is_reported(tmp_path: Path) -> None:
    for name, content in (("a", b"x" * 10), ("b", b"y" * 5)):
        (tmp_path / name).write_bytes(content)
    heard = Heard()
    records = record_files([tmp_path / "a", tmp_path / "b"], heard)
    assert [(record.name, record.size) for record in records] == [("a", 10), ("b", 5)]
    assert records[1].blake3 == blake3(b"y" * 5).hexdigest()
    assert (heard.stages, heard.bytes) == ([("hashing", 15)], 15)
