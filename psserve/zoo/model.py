"""The two things a zoo holds: what their manifests say, and where they are."""

from __future__ import annotations

from pathlib import Path

from psserve.errors import ManifestError
from psserve.zoo.manifest import BaseRecord, FileRecord, ModuleManifest


class Base(BaseRecord):
    """The shared prefill module: a frozen pretrained model whose checkpoint directory is `path`."""

    path: Path

    @property
    def weight_bytes(self) -> int:
        """Size of the weights on disk."""
        return weight_bytes(self.files)


class Module(ModuleManifest):
    """A decode module: weights in the directory `path`, served with the base's tokenizer and configuration."""

    path: Path

    @property
    def weight_bytes(self) -> int:
        """Size of the weights on disk."""
        return weight_bytes(self.files)


def weight_bytes(files: tuple[FileRecord, ...]) -> int:
    """Size in bytes of the safetensors among `files`."""
    return sum(file.size for file in files if file.name.endswith(".safetensors"))


def check_files(directory: Path, files: tuple[FileRecord, ...], what: str) -> None:
    """Raise ManifestError if a file of `files` is gone or has another size than was recorded."""
    for file in files:
        path = directory / file.name
        if not path.is_file():
            raise ManifestError(f"{path}: missing, but recorded as part of {what}: restore it")
        size = path.stat().st_size
        if size != file.size:
            raise ManifestError(f"{path}: {size} bytes, recorded {file.size}: {what} changed, restore it")
