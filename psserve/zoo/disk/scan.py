"""What is in `modules/`: the modules that can be served, and those that cannot, with the reason.

One damaged module must not take the others with it, so nothing here raises for a module's fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from psserve.errors import ManifestError, UnknownModule
from psserve.zoo.disk.manifest import MODULE_MANIFEST, ModuleManifest, read_manifest
from psserve.zoo.disk.model import Base, Module, check_stored

RENAMED_MANIFEST = ".renamed.toml"
"""The manifest that replaces `module.toml` once the directory has its new name (see transactions.py)."""
PARSED = 1 << 13
"""Manifests that are kept in memory, for zoos that are scanned more than once."""


@dataclass(frozen=True)
class Scan:
    """The modules of the zoo at `path`, at one moment."""

    path: Path
    modules: tuple[Module, ...]
    """Those that can be served, by name."""
    damaged: dict[str, ManifestError]
    """Directory name -> why the module in it cannot be served."""

    @property
    def names(self) -> dict[str, str]:
        """Each name and alias in use -> the module that has it. Aliases of damaged modules are not known."""
        names = {name: name for name in self.damaged}
        for module in self.modules:
            names |= dict.fromkeys((module.name, *module.aliases), module.name)
        return names

    def get(self, name: str) -> Module:
        """The module of that name or alias. Raises ManifestError if it is damaged, UnknownModule if there is none."""
        for module in self.modules:
            if name in (module.name, *module.aliases):
                return module
        if name in self.damaged:
            raise self.damaged[name]
        known = ", ".join(sorted({*(module.name for module in self.modules), *self.damaged}))
        known = known or "it has none: add one with `psserve add-model`"
        raise UnknownModule(f"no module {name!r} in {self.path} (modules: {known})")

    def owner(self, name: str) -> str:
        """The name of the module of that name or alias, damaged or not. Raises UnknownModule."""
        return self.names.get(name) or self.get(name).name


def scan_modules(zoo: Path, base: Base) -> Scan:
    """Read every module of the zoo at `zoo` from disk."""
    found: list[Module] = []
    damaged: dict[str, ManifestError] = {}
    for directory in module_directories(zoo):
        try:
            found.append(read_module(directory, base))
        except ManifestError as error:
            if (directory / MODULE_MANIFEST).exists():  # if not, another command has just moved or removed it
                damaged[directory.name] = error
    damaged |= contradictions(found)
    return Scan(zoo, tuple(module for module in found if module.name not in damaged), damaged)


def module_directories(zoo: Path) -> list[Path]:
    """The directories of complete modules, by name."""
    return sorted(path.parent for path in (zoo / "modules").glob(f"*/{MODULE_MANIFEST}"))


def read_module(directory: Path, base: Base) -> Module:
    """The module in `directory`; ManifestError says why it cannot be served over `base`.

    Sizes of its files are checked, contents are not (see `psserve.zoo.verify`).
    """
    module = parse_module(directory)
    check_usable(module, base)
    return module


def check_usable(module: Module, base: Base) -> None:
    """Raise ManifestError, which says why `module` cannot be served over `base`."""
    if module.base_fingerprint != base.fingerprint:
        theirs, ours = module.base_fingerprint[:12], base.fingerprint[:12]
        raise ManifestError(
            f"{module.path / MODULE_MANIFEST}: imported for another base (fingerprint {theirs}, base {base.name!r} has "
            f"{ours}): import it again with `psserve add-model`"
        )
    check_stored(module)


def parse_module(directory: Path) -> Module:
    """What the manifest in `directory` says, whether true or not; ManifestError if it says nothing sound."""
    manifest = manifest_of(directory / MODULE_MANIFEST)
    if manifest.name != directory.name and (directory / RENAMED_MANIFEST).exists():
        manifest = read_manifest(directory / RENAMED_MANIFEST, ModuleManifest)
    if manifest.name != directory.name:
        raise ManifestError(
            f"{directory / MODULE_MANIFEST}: name is {manifest.name!r} but the directory is {directory.name!r}: "
            "make them equal"
        )
    return Module.model_construct(path=directory, **dict(manifest))  # its fields are checked already


def manifest_of(path: Path) -> ModuleManifest:
    """The manifest at `path`, parsed again only if the file is not the one that was parsed before.

    A zoo of a thousand modules is scanned several times by one command. Raises ManifestError.
    """
    try:
        found = path.stat()
    except OSError:
        return read_manifest(path, ModuleManifest)  # which says what is wrong
    return parsed(path, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


@lru_cache(maxsize=PARSED)
def parsed(path: Path, *file: int) -> ModuleManifest:
    """The manifest at `path`; `file` tells one file there from the next."""
    return read_manifest(path, ModuleManifest)


def contradictions(modules: list[Module]) -> dict[str, ManifestError]:
    """Name -> error for each module with an alias that is another's name, or an alias of one before it."""
    owner = {module.name: module.name for module in modules}
    wrong: dict[str, ManifestError] = {}
    for module in modules:
        for alias in module.aliases:
            other = owner.setdefault(alias, module.name)
            if other != module.name:
                where = module.path / MODULE_MANIFEST
                wrong[module.name] = ManifestError(
                    f"{where}: {alias!r} is a name of module {other!r} too: remove one of the two"
                )
    return wrong
