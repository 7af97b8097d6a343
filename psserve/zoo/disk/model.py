"""The two things a zoo holds: what their manifests say, and where they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from psserve.errors import ManifestError
from psserve.zoo.disk.manifest import BaseRecord, EvaluationRecord, FileRecord, ModuleManifest, hash_file
from psserve.zoo.disk.progress import SILENT, Progress

TrainingState = Literal["on cache", "not on cache", "other base", "no record"]
"""On what a module's record says that it was trained, seen from the zoo's base: its KV cache, or something else."""


class Base(BaseRecord):
    """The shared prefill module: a frozen pretrained model whose checkpoint directory is `path`."""

    path: Path

    @property
    def weight_bytes(self) -> int:
        """Size of the weights on disk."""
        return weight_bytes(self.files)

    @property
    def auxiliary_files(self) -> dict[str, Path]:
        """Name -> path of all but the weights: configuration, tokenizer and chat template."""
        weights = (".safetensors", ".safetensors.index.json")
        return {file.name: self.path / file.name for file in self.files if not file.name.endswith(weights)}


class Module(ModuleManifest):
    """A decode module: weights in the directory `path`, served with the base's tokenizer and configuration.

    Where its configuration says otherwise, it has `settings` of its own.
    """

    path: Path

    @property
    def versioned_name(self) -> str:
        """NAME@VERSION, which names these weights whatever version the module is later."""
        return f"{self.name}@{self.version}"

    @property
    def weight_bytes(self) -> int:
        """Size of the weights as they are served; of an adapter, without the base's."""
        return weight_bytes(self.files)

    @property
    def shares_servers(self) -> bool:
        """Whether it is an adapter that can be served beside others, by servers that have the base's weights.

        Not one with end tokens or sampling defaults of its own (`settings`), as a server has one set of these.
        """
        return self.store == "adapter" and not self.settings

    @property
    def on_disk(self) -> list[tuple[Path, FileRecord]]:
        """Where the module's weights are, as they are stored, and what each of these files must be."""
        if self.store == "link":
            return [(Path(self.links[file.name].path), file) for file in self.files]
        return [(self.path / file.name, file) for file in (self.stored if self.store == "delta" else self.files)]

    @property
    def settings_files(self) -> dict[str, Path]:
        """Name -> path of each file that is served in place of the base's."""
        return {file.name: self.path / file.name for file in self.settings}

    @property
    def settings_on_disk(self) -> list[tuple[Path, FileRecord]]:
        """Where these files are, and what each must be."""
        return [(self.settings_files[file.name], file) for file in self.settings]

    @property
    def disk_bytes(self) -> int:
        """Size of its files in the zoo's directory."""
        weights = 0 if self.store == "link" else sum(file.size for _, file in self.on_disk)
        return weights + sum(file.size for file in self.settings)

    @property
    def manifest(self) -> ModuleManifest:
        """What its `module.toml` says."""
        return ModuleManifest.model_construct(**{field: value for field, value in self if field != "path"})

    @property
    def latest_evaluation(self) -> EvaluationRecord | None:
        """The accuracy that was recorded last."""
        return self.evaluations[-1] if self.evaluations else None

    def training_for(self, base: Base) -> TrainingState:
        """On what it was trained. Only "on cache" is as it is served."""
        if self.training is None:
            return "no record"
        if self.training.base_fingerprint != base.fingerprint:
            return "other base"
        return "on cache" if self.training.method == "cache-conditioned" else "not on cache"


def weight_bytes(files: tuple[FileRecord, ...]) -> int:
    """Size in bytes of the safetensors among `files`."""
    return sum(file.size for file in files if file.name.endswith(".safetensors"))


def first_changed(files: Iterable[tuple[Path, FileRecord]], progress: Progress = SILENT) -> Path | None:
    """The first file whose content is not what was recorded, to the byte; None if there is none."""
    return next((path for path, file in files if hash_file(path, progress) != file.blake3), None)


def check_stored(module: Module) -> None:
    """Raise ManifestError if a file of `module` is gone or has another size than was recorded."""
    for path, file in (*module.on_disk, *module.settings_on_disk):
        check_file(path, file, f"module {module.name!r}")


def check_files(directory: Path, files: tuple[FileRecord, ...], what: str) -> None:
    """Raise ManifestError if a file of `files` is gone or has another size than was recorded."""
    for file in files:
        check_file(directory / file.name, file, what)


def check_file(path: Path, file: FileRecord, what: str) -> None:
    """Raise ManifestError if there is no file at `path`, or one of another size than was recorded."""
    if not path.is_file():
        raise ManifestError(f"{path}: missing, but recorded as part of {what}: restore it")
    size = path.stat().st_size
    if size != file.size:
        raise ManifestError(f"{path}: {size} bytes, recorded {file.size}: {what} changed, restore it")
