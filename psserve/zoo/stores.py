"""A module's complete weight files, however it is stored."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from psserve.errors import ManifestError
from psserve.zoo.checkpoints.safetensors import Weights
from psserve.zoo.disk.manifest import FileRecord, hash_bytes, new_hash
from psserve.zoo.disk.model import Base, Module, check_stored, first_changed
from psserve.zoo.disk.progress import SILENT, Progress, with_progress
from psserve.zoo.disk.storage import check_space, lock, sync_directory


def checkpoint_files(base: Base, module: Module, cache: Path, progress: Progress = SILENT) -> dict[str, Path]:
    """Name -> path of each safetensors file of the module over `base`, and of their index.

    Copies are in the module's directory, links elsewhere; deltas are rebuilt, and adapters merged into the base's
    weights, into the directory `cache`, unless it has the files already. Raises ManifestError if a file is missing,
    damaged or changed, ZooError if there is no room.
    """
    check_stored(module)
    if module.store == "link":
        check_links(module, progress)
    if module.store in ("copy", "link"):
        return {file.name: path for path, file in module.on_disk}
    return rebuilt_files(base, module, cache, progress)


def check_links(module: Module, progress: Progress) -> None:
    """Raise ManifestError if a linked file is not what it was. Those of another time are hashed to find out."""
    touched = [
        (path, file) for path, file in module.on_disk if path.stat().st_mtime_ns != module.links[file.name].modified_ns
    ]
    progress.stage(f"hashing {module.name}", sum(file.size for _, file in touched))
    if changed := first_changed(touched, progress):
        raise ManifestError(
            f"{changed}: changed since module {module.name!r} was linked to it: restore it, or add the module again"
        )


def rebuilt_files(base: Base, module: Module, cache: Path, progress: Progress) -> dict[str, Path]:
    """The rebuilt files of a module, in a directory of `cache` that is named by their hashes."""
    complete = rebuilt_directory(cache, module)
    files = complete_files(base, module)
    if not has_files(complete, files):
        cache.mkdir(parents=True, exist_ok=True)
        with lock(cache / ".lock"):
            if not has_files(complete, files):
                remove_rebuilt(cache)
                rebuild(base, module, complete, progress)
    return {file.name: complete / file.name for file in files}


def rebuilt_directory(cache: Path, module: Module) -> Path:
    """Where, in `cache`, the module's rebuilt files are once they are complete: named by what is in them."""
    return cache / hash_bytes("".join(file.blake3 for file in module.files).encode())[:16]


def complete_files(base: Base, module: Module) -> tuple[FileRecord, ...]:
    """The files of the module's complete checkpoint; of merged ones, sizes and names alone are right, as the base's."""
    if module.store != "adapter":
        return module.files
    return tuple(file for file in base.files if file.name not in base.auxiliary_files)


def has_files(complete: Path, files: tuple[FileRecord, ...]) -> bool:
    """Whether the files were rebuilt at `complete`; the hashes that are known were checked then."""
    paths = {file: complete / file.name for file in files}
    return all(path.is_file() and path.stat().st_size == file.size for file, path in paths.items())


def remove_rebuilt(cache: Path) -> None:
    """Remove what an older version of the module, or a rebuild that was killed, left."""
    for entry in cache.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)


def rebuild(base: Base, module: Module, complete: Path, progress: Progress) -> None:
    """Make the directory `complete`, in one step, with every file of the module in it."""
    size = sum(file.size for file in complete_files(base, module))
    check_space(complete.parent, size)
    progress.stage(f"rebuilding {module.name}", size)
    building = complete.with_suffix(".building")
    building.mkdir()
    if module.store == "adapter":
        merge(base, module, building, progress)
    else:
        rebuild_deltas(base, module, building, progress)
    sync_directory(building)
    building.rename(complete)
    sync_directory(complete.parent)


def merge(base: Base, module: Module, directory: Path, progress: Progress) -> None:
    """Write the base's weights with the module's adapter merged into them, and their index, to `directory`."""
    from psserve.zoo.checkpoints.checkpoint import read_checkpoint  # here, as it imports Transformers
    from psserve.zoo.checkpoints.lora import merged_file, read_adapter
    from psserve.zoo.checkpoints.safetensors import weight_file

    base_weights = [(base.path / file.name, file) for file in complete_files(base, module)]
    if changed := first_changed([*module.on_disk, *base_weights]):
        raise ManifestError(f"{changed}: changed since it was recorded: restore it (psserve verify checks all files)")
    checkpoint = read_checkpoint(base.path)
    adapter = read_adapter(module.path, checkpoint)
    for shard in checkpoint.shards:
        with (directory / shard.name).open("xb") as writer:
            for block in with_progress(merged_file(weight_file(shard), adapter).blocks(), progress):
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
    for path in checkpoint.index:
        shutil.copyfile(path, directory / path.name)


def rebuild_deltas(base: Base, module: Module, directory: Path, progress: Progress) -> None:
    """Write what the module's deltas make of the base's weights, and its other files, to `directory`."""
    weights = Weights([base.path / file.name for file in base.files if file.name.endswith(".safetensors")])
    for file in module.files:
        if file in module.stored:
            shutil.copyfile(module.path / file.name, directory / file.name)
        else:
            rebuild_file(module, file, weights, directory / file.name, progress)


def rebuild_file(module: Module, file: FileRecord, base: Weights, destination: Path, progress: Progress) -> None:
    """Write one complete file and check its hash."""
    from psserve.zoo.checkpoints import delta  # here, as it imports NumPy, which a fleet without deltas need not

    stored = module.path / (file.name + delta.SUFFIX)
    digest = new_hash()
    with stored.open("rb") as reader, destination.open("xb") as writer:
        try:
            for block in with_progress(delta.decode(reader, base), progress):
                digest.update(block)
                writer.write(block)
        except delta.DamagedDelta as error:
            raise ManifestError(f"{stored}: damaged ({error}): add module {module.name!r} again") from None
        writer.flush()
        os.fsync(writer.fileno())
    if digest.hexdigest() != file.blake3:
        raise ManifestError(
            f"{stored}: does not give what it was made of: it or a file of the base is damaged: run psserve verify"
        )
