"""The zoo on disk: one base and its decode modules.

zoo.toml                    the base: where it is, its fingerprint, its files with sizes and hashes
modules/NAME/module.toml    what NAME is for, how it was trained, its files with sizes and hashes
modules/NAME/*.safetensors  its weights
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from psserve.errors import UnknownModule, UsageError, ZooNotFound
from psserve.zoo.adding.source import find_source, resolve
from psserve.zoo.disk.manifest import (
    MODULE_MANIFEST,
    ZOO_MANIFEST,
    EvaluationRecord,
    Store,
    ZooManifest,
    check_free,
    check_name,
    check_text,
    read_manifest,
    write_manifest,
)
from psserve.zoo.disk.model import Base, Module, check_files
from psserve.zoo.disk.progress import SILENT, Progress
from psserve.zoo.disk.scan import Scan, check_usable, scan_modules
from psserve.zoo.disk.transactions import changing, remove_directory, rename_module, switch_version
from psserve.zoo.disk.versions import KEEP_VERSIONS, kept_directory, kept_version

# What makes and imports checkpoints is imported where it is used: it brings NumPy, and a listing must be there at once.

DEFAULT_ZOO = Path("model_zoo")


def zoo_path(explicit: Path | None = None) -> Path:
    """Where the zoo is or would be: `explicit`, then $PSSERVE_ZOO, then ./model_zoo."""
    return explicit or Path(os.environ.get("PSSERVE_ZOO") or DEFAULT_ZOO)


def find_zoo(explicit: Path | None = None) -> Path:
    """The zoo's directory (see `zoo_path`); ZooNotFound if there is no zoo."""
    path = zoo_path(explicit)
    if not (path / ZOO_MANIFEST).is_file():
        raise ZooNotFound(f"{path}: no zoo there: create one with `psserve init --base DIR`, or give --zoo")
    return path


@dataclass(frozen=True)
class Zoo:
    """An opened zoo. Modules are read from disk at each call, so that what another process added is seen."""

    path: Path
    base: Base

    @classmethod
    def open(cls, path: Path) -> Zoo:
        """Open the zoo at `path`. Raises ZooNotFound, or ManifestError (zoo.toml is bad, or the base changed)."""
        zoo = cls.read(path)
        check_files(zoo.base.path, zoo.base.files, f"base {zoo.base.name!r}")
        return zoo

    @classmethod
    def read(cls, path: Path) -> Zoo:
        """Open the zoo at `path` as `open` does, but whatever became of the base's files (to verify them)."""
        find_zoo(path)
        record = read_manifest(path / ZOO_MANIFEST, ZooManifest).base
        base = Base(path=resolve(record.source, record.revision, path), **record.model_dump())
        return cls(path.resolve(), base)

    @classmethod
    def create(
        cls,
        path: Path,
        base: str | Path,
        name: str | None = None,
        *,
        revision: str | None = None,
        progress: Progress = SILENT,
    ) -> Zoo:
        """Make a zoo at `path` for the checkpoint `base`, which stays where it is.

        `base` is a directory, or a Hub id, which is pinned to a commit (of `revision`) and downloaded if it is not in
        the local cache. `name` is the base's name (default: the last part of `base`). Raises ZooError,
        IncompatibleCheckpoint or UsageError.
        """
        from psserve.zoo.adding.creation import create_zoo

        create_zoo(path, base, name, revision, progress)
        return cls.open(path)

    def scan(self) -> Scan:
        """All modules, those that can be served and those that are damaged."""
        return scan_modules(self.path, self.base)

    def modules(self) -> list[Module]:
        """The modules that can be served, sorted by name (`scan` also has the damaged ones)."""
        return list(self.scan().modules)

    def module(self, name: str) -> Module:
        """The module of that name or alias, or a version of it (NAME@VERSION).

        Raises UnknownModule, which lists those there are, or ManifestError.
        """
        name, _, version = name.partition("@")
        module = self.scan().get(name)
        if not version or version == str(module.version):
            return module
        if not version.isdecimal():
            raise UnknownModule(f"{name}@{version}: a version is a number")
        kept = kept_version(module, int(version))
        check_usable(kept, self.base)
        return kept

    def add(
        self,
        name: str,
        source: str | Path,
        task: str = "",
        examples: Iterable[str] = (),
        aliases: Iterable[str] = (),
        allow_naive: bool = False,
        replace: bool = False,
        *,
        revision: str | None = None,
        store: Store | None = None,
        keep_versions: int = KEEP_VERSIONS,
        candidate: bool = False,
        progress: Progress = SILENT,
    ) -> Module:
        """Import `source` as module `name`: checked against the base, then stored as `store` says.

        Without a `store` (None) a LoRA adapter stays one where servers can serve it so, and all else is copied; with
        one other than "adapter" it is merged into the base's weights.

        `source` is a directory or a Hub id (with a `revision`): a full checkpoint, a LoRA adapter, or a training run.

        With `replace`, a module of that name may be there and gives way once the new one is complete. It stays as an
        older version; the last `keep_versions` stay, with the new one. With `candidate` as well, the module stays what
        it is, and the new one becomes another version of it, to which `roll_back` can go.

        Raises UsageError (a name, path or text), ModuleExists, IncompatibleCheckpoint (with the field and both values),
        or ZooError (another command is changing the zoo); the zoo is then as it was.
        """
        from psserve.zoo.adding.importing import NewModule, import_module

        examples, aliases = tuple(examples), tuple(aliases)
        for text in (task, *examples):
            check_text(text)
        if candidate:
            self.check_own_name(name)
        self.check_new(name, aliases, replace)  # before anything is downloaded, and again when nobody else adds modules
        found = find_source(source, self.path, revision)
        with changing(self.path):
            self.check_new(name, aliases, replace)
            new = NewModule(name, found, task, examples, aliases, allow_naive, store, keep_versions, candidate)
            version = import_module(self.path, self.base, new, progress)
        return self.module(f"{name}@{version}")

    def roll_back(self, name: str, version: int | None = None, keep_versions: int | None = None) -> Module:
        """Serve another version of the module `name` (no alias): that one, or the one before the present one.

        The present one stays as a version, and so do all others, or the last `keep_versions` in all. Name, aliases,
        task and examples stay what they are. Raises UnknownModule (no such module or version), ManifestError (one of
        the two is damaged), or ZooError (another command is changing the zoo).
        """
        with changing(self.path):
            self.check_own_name(name)
            module = self.module(name)
            wanted = version or module.previous
            if wanted is None:
                raise UnknownModule(f"module {name!r} has no version before version {module.version}")
            if wanted != module.version:
                switch_version(self.path, module, self.module(f"{name}@{wanted}"), keep_versions)
        return self.module(name)

    def remove(self, name: str) -> None:
        """Delete the module `name` (no alias), damaged or not: at once for every reader, and for good.

        Raises UnknownModule, or ZooError (another command is changing the zoo). A fleet that serves the module is not
        asked: that is the caller's part.
        """
        with changing(self.path):
            self.check_own_name(name)
            remove_directory(self.path, self.path / "modules" / name)

    def remove_version(self, name: str, version: int) -> None:
        """Delete a version of the module `name` (no alias) that is not the one served. Raises as `remove`."""
        with changing(self.path):
            self.check_own_name(name)
            module = self.module(name)
            if version == module.version:
                raise UsageError(f"{name}@{version} is what module {name!r} is now: roll it back first")
            remove_directory(self.path, kept_directory(module, version))

    def rename(self, old: str, new: str, keep_alias: bool = False) -> Module:
        """Call the module `old` (no alias) `new`, at once for every reader; with `keep_alias`, `old` means it too.

        Raises UnknownModule, ManifestError (it is damaged), UsageError (`new` may not be a name), ModuleExists, or
        ZooError (another command is changing the zoo).
        """
        with changing(self.path):
            self.check_own_name(old)
            module = self.module(old)
            check_name(new)
            taken = {name: owner for name, owner in self.scan().names.items() if owner != old or name == old}
            check_free([new], self.base.name, taken)
            aliases = tuple(alias for alias in module.aliases if alias != new) + ((old,) if keep_alias else ())
            rename_module(module.path, module.manifest.model_copy(update={"name": new, "aliases": aliases}))
        return self.module(new)

    def record_evaluation(self, name: str, evaluation: EvaluationRecord) -> None:
        """Add to the evaluations of the module of that name or alias, as the latest. Raises as `rename` does.

        An earlier one of the same conditions gives way.
        """
        with changing(self.path):
            module = self.module(name)
            others = (each for each in module.evaluations if each.conditions != evaluation.conditions)
            evaluations = (*others, evaluation)
            changed = module.manifest.model_copy(update={"evaluations": evaluations})
            write_manifest(module.path / MODULE_MANIFEST, changed)

    def check_own_name(self, name: str) -> None:
        """Raise UnknownModule if no module is called `name`, which may be another one's alias."""
        scan = self.scan()
        if scan.names.get(name) != name:
            owner = scan.get(name).name
            raise UnknownModule(f"{name!r} is an alias of module {owner!r}: give the module's own name")

    def check_new(self, name: str, aliases: Sequence[str] = (), replace: bool = False) -> None:
        """Raise UsageError if the name or an alias may not be used, ModuleExists if it is taken.

        With `replace`, those of the module `name` are free.
        """
        check_name(name)
        for alias in aliases:
            check_name(alias, "alias")
        taken = {used: owner for used, owner in self.scan().names.items() if not (replace and owner == name)}
        check_free((name, *aliases), self.base.name, taken)
