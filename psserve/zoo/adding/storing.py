"""How the weights of a new module are kept: copied (an adapter's, too), linked, or as what differs from the base."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from blake3 import blake3

from psserve.errors import UsageError
from psserve.zoo.adding.incoming import Incoming
from psserve.zoo.checkpoints import delta
from psserve.zoo.checkpoints.checkpoint import Checkpoint
from psserve.zoo.checkpoints.safetensors import BLOCK, WeightFile, Weights
from psserve.zoo.disk.manifest import FileRecord, LinkRecord, Store, hash_file, new_hash
from psserve.zoo.disk.progress import Progress, with_progress


@dataclass(frozen=True)
class Stored:
    """The fields of a module's manifest that say what is stored where."""

    store: Store
    files: tuple[FileRecord, ...]
    stored: tuple[FileRecord, ...] = ()
    links: dict[str, LinkRecord] = field(default_factory=dict)


def check_store(incoming: Incoming, store: Store) -> None:
    """Raise UsageError if `incoming` cannot be stored so."""
    if store == "adapter" and incoming.adapter is None:
        raise UsageError(f"{incoming.path}: --store adapter is for LoRA adapters, and this is a full checkpoint")
    if store == "link" and incoming.computed:
        raise UsageError(f"{incoming.path}: --store link needs weights on disk, and an adapter's are merged: copy them")


def store_weights(store: Store, incoming: Incoming, base: Checkpoint, directory: Path, progress: Progress) -> Stored:
    """Store the weights of `incoming`, with `directory` for the files. They are synced to disk."""
    progress.stage("hashing" if store == "link" else "copying", incoming.size)
    if store == "link":
        return link(incoming, progress)
    if store == "delta":
        return write_deltas(incoming, base, directory, progress)
    files = [write(directory / file.name, with_progress(file.blocks(), progress)) for file in incoming.files]
    return Stored(store, (*files, *copy_index(incoming, directory)))


def copy_index(incoming: Incoming, directory: Path) -> list[FileRecord]:
    """Write the index of the shards, or what an adapter has in its place, if there is one."""
    return [write(directory / path.name, [path.read_bytes()]) for path in incoming.index]


def link(incoming: Incoming, progress: Progress) -> Stored:
    """Note where the files are. Their times are taken first, so that a change while they are hashed is seen later."""
    paths = [path.absolute() for path in incoming.checkpoint.weight_files]
    links = {path.name: LinkRecord(path=str(path), modified_ns=path.stat().st_mtime_ns) for path in paths}
    files = [FileRecord(name=path.name, size=path.stat().st_size, blake3=hash_file(path, progress)) for path in paths]
    return Stored("link", tuple(files), links=links)


def write_deltas(incoming: Incoming, base: Checkpoint, directory: Path, progress: Progress) -> Stored:
    """Write what differs from the base, and note what the complete files are."""
    weights = Weights(base.shards)
    index = copy_index(incoming, directory)
    files, deltas = [], []
    for file in incoming.files:
        digest = new_hash()
        pieces = delta.encode_delta(watched(file, digest, progress), weights)
        deltas.append(write(directory / (file.name + delta.SUFFIX), pieces))
        files.append(FileRecord(name=file.name, size=file.size, blake3=digest.hexdigest()))
    return Stored("delta", (*files, *index), (*deltas, *index))


def watched(file: WeightFile, digest: blake3, progress: Progress) -> WeightFile:
    """`file`, which feeds `digest` when its tensors are read in order."""
    digest.update(file.head)

    def read(name: str, size: int = BLOCK) -> Iterator[bytes]:
        for block in with_progress(file.read(name, size), progress):
            digest.update(block)
            yield block

    return replace(file, read=read)


def write(path: Path, blocks: Iterable[bytes]) -> FileRecord:
    """Write a new file, synced to disk, and hash what is written."""
    digest, size = new_hash(), 0
    with path.open("xb") as file:
        for block in blocks:
            digest.update(block)
            file.write(block)
            size += len(block)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(name=path.name, size=size, blake3=digest.hexdigest())
