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

from psserve.errors import ManifestError, UnknownModule, ZooNotFound
from psserve.zoo.creation import create_zoo
from psserve.zoo.importing import NewModule, import_module, restore_replaced
from psserve.zoo.manifest import MODULE_MANIFEST, ZOO_MANIFEST, ModuleManifest, ZooManifest, read_manifest
from psserve.zoo.model import Base, Module, check_files
from psserve.zoo.names import check_free, check_name
from psserve.zoo.source import resolve
from psserve.zoo.storage import lock

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
        find_zoo(path)
        record = read_manifest(path / ZOO_MANIFEST, ZooManifest).base
        base = Base(path=resolve(record.source, record.revision, path), **record.model_dump())
        check_files(base.path, base.files, f"base {base.name!r}")
        return cls(path.resolve(), base)

    @classmethod
    def create(cls, path: Path, base: str | Path, name: str | None = None) -> Zoo:
        """Make a zoo at `path` for the checkpoint `base` (a directory, or a Hub id on this machine), which stays there.

        `name` is the base's name (default: the last part of `base`). Raises ZooError or IncompatibleCheckpoint.
        """
        create_zoo(path, base, name)
        return cls.open(path)

    def modules(self) -> list[Module]:
        """The complete modules, sorted by name. Raises ManifestError for a damaged or contradictory manifest."""
        modules = [read_module(path) for path in sorted((self.path / "modules").glob(f"*/{MODULE_MANIFEST}"))]
        names_in_use(modules)
        return modules

    def module(self, name: str) -> Module:
        """The module of that name or alias; UnknownModule lists those there are."""
        modules = self.modules()
        for module in modules:
            if name in (module.name, *module.aliases):
                return module
        known = ", ".join(module.name for module in modules) or "it has none: add one with `psserve add-model`"
        raise UnknownModule(f"no module {name!r} in {self.path} (modules: {known})")

    def add(
        self,
        name: str,
        source: Path,
        task: str = "",
        examples: Iterable[str] = (),
        aliases: Iterable[str] = (),
        allow_naive: bool = False,
        replace: bool = False,
    ) -> Module:
        """Import the full checkpoint directory `source` as module `name`: checked against the base, then copied.

        With `replace`, a module of that name may be there and gives way once the new one is complete.
        Raises UsageError (name), ModuleExists, IncompatibleCheckpoint (with the field and both values), or ZooError
        (another command is changing the zoo); the zoo is then as it was.
        """
        new = NewModule(name, source, task, tuple(examples), tuple(aliases), allow_naive)
        with lock(self.path / ".lock"):
            restore_replaced(self.path)
            self.check_new(name, new.aliases, replace)
            import_module(self.path, self.base, new)
        return self.module(name)

    def check_new(self, name: str, aliases: Sequence[str] = (), replace: bool = False) -> None:
        """Raise UsageError if the name or an alias may not be used, ModuleExists if it is taken.

        With `replace`, those of the module `name` are free.
        """
        check_name(name)
        for alias in aliases:
            check_name(alias, "alias")
        others = [module for module in self.modules() if not (replace and module.name == name)]
        check_free((name, *aliases), self.base.name, names_in_use(others))


def read_module(manifest: Path) -> Module:
    """The module whose manifest is at `manifest`."""
    module = Module(path=manifest.parent, **read_manifest(manifest, ModuleManifest).model_dump())
    if module.name != module.path.name:
        raise ManifestError(
            f"{manifest}: name is {module.name!r} but the directory is {module.path.name!r}: make them equal"
        )
    return module


def names_in_use(modules: list[Module]) -> dict[str, str]:
    """Each name and alias -> the module that has it; ManifestError if two have the same."""
    taken: dict[str, str] = {}
    for module in modules:
        for name in (module.name, *module.aliases):
            if name in taken:
                where = module.path / MODULE_MANIFEST
                raise ManifestError(f"{where}: {name!r} is a name of module {taken[name]!r} too: remove one of the two")
            taken[name] = module.name
    return taken
