"""Hashes of files: BLAKE3, on all cores, as fast as memory can be read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

from psserve.zoo.manifest import FileRecord
from psserve.zoo.progress import SILENT, Progress

CHUNK = 4 << 20
"""Bytes read at a time: read into one buffer, which keeps memory small and is no slower than mapping the file."""


def new_hash() -> blake3:
    """A hash to be fed; `hexdigest()` gives the 64 characters of a manifest."""
    return blake3(max_threads=blake3.AUTO)


def hash_bytes(content: bytes) -> str:
    """BLAKE3 of a short content, in hex."""
    return blake3(content).hexdigest()


def hash_file(path: Path, progress: Progress = SILENT) -> str:
    """BLAKE3 of a file's content, in hex."""
    digest, buffer = new_hash(), bytearray(CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(view[:size])
            progress.advance(size)
    return digest.hexdigest()


def record_files(files: Iterable[Path], progress: Progress = SILENT, what: str = "hashing") -> tuple[FileRecord, ...]:
    """Names, sizes and hashes of files."""
    sizes = {file: file.stat().st_size for file in files}
    progress.stage(what, sum(sizes.values()))
    return tuple(
        FileRecord(name=file.name, size=size, blake3=hash_file(file, progress)) for file, size in sizes.items()
    )
