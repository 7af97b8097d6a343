"""The versions of a module: the one that is served, in `modules/NAME/`, and others in `modules/NAME/versions/NUMBER/`.

They lie within the module's directory, so that whatever puts, renames or deletes that directory in one step does so
with all of them. Each is a directory like a module's, of hard links to the files that it had when it was served. What
says what the module is for (its name, aliases, task, examples), and which versions it has been when, is no version's:
they all have what the module has now.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from psserve.errors import ManifestError, UnknownModule
from psserve.zoo.disk.manifest import MODULE_MANIFEST, ModuleManifest, SuccessionRecord
from psserve.zoo.disk.model import Base, Module, check_stored
from psserve.zoo.disk.scan import check_usable, manifest_of, parse_module
from psserve.zoo.disk.storage import sync_directory

VERSIONS = "versions"
KEEP_VERSIONS = 3
"""How many versions of a module stay, with the one that is served, unless somebody says otherwise."""
_SHARED = ("name", "aliases", "task", "examples", "succession")


def kept_numbers(directory: Path) -> list[int]:
    """The numbers of the versions beside the one that is served of the module in `directory`, newest first."""
    names = [path.name for path in (directory / VERSIONS).glob("*/")]
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def numbers(module: Module) -> list[int]:
    """The numbers of all its versions, newest first."""
    return sorted({module.version, *kept_numbers(module.path)}, reverse=True)


def next_number(directory: Path) -> int:
    """The number of the next version of the module in `directory`, which no other has had unless it was deleted."""
    return 1 + max(served_number(directory) or 0, *kept_numbers(directory), 0)


def served_number(directory: Path) -> int | None:
    """The number of the version of the module in `directory` that is served; None if there is no sound one."""
    try:
        return parse_module(directory).version
    except ManifestError:
        return None


def kept_directory(module: Module, number: int) -> Path:
    """Where one of its kept versions is; UnknownModule if there is none of that number."""
    directory = module.path / VERSIONS / str(number)
    if not directory.is_dir():
        known = ", ".join(str(one) for one in numbers(module))
        raise UnknownModule(f"no version {number} of module {module.name!r} (versions: {known})")
    return directory


def kept_version(module: Module, number: int) -> Module:
    """One of the kept versions. Raises UnknownModule, or ManifestError: its manifest says nothing sound."""
    directory = kept_directory(module, number)
    manifest = dict(manifest_of(directory / MODULE_MANIFEST))
    shared = {field: getattr(module, field) for field in _SHARED}
    return Module.model_construct(path=directory, **(manifest | shared))


def kept_versions(module: Module, base: Base) -> Iterator[Module]:
    """The kept versions that could be served over `base`, newest first."""
    for version in _sound_versions(module):
        with suppress(ManifestError):
            check_usable(version, base)
            yield version


def succession(module: Module) -> tuple[SuccessionRecord, ...]:
    """Which versions took the place of the module (as it is now, no kept version), oldest first.

    Older manifests do not say it. A module that has one version, its first, has been that one from the start.
    """
    if module.succession or numbers(module) != [1]:
        return module.succession
    return (SuccessionRecord(version=1, date=module.created),)


def succession_in(directory: Path) -> tuple[SuccessionRecord, ...]:
    """The same of the module in `directory`; nothing if there is no sound one."""
    try:
        return succession(parse_module(directory))
    except ManifestError:
        return ()


def versions_during(module: Module, start: float, end: float) -> set[int | None]:
    """The versions that may have answered for the module (as it is now) from `start` to `end`, in Unix seconds.

    None stands for not known. A version that came beside the module may have been on trial until the next one took the
    module's place: how long it was, nobody has written down.
    """
    taken = succession(module)
    if not taken or start < taken[0].date:
        return {None}
    begun = [one.date for one in taken]
    periods = list(zip([one.version for one in taken], begun, [*begun[1:], math.inf], strict=True))
    for one in (module, *_sound_versions(module)):
        if SuccessionRecord(version=one.version, date=one.created) not in taken:
            until = min((date for date in begun if date > one.created), default=math.inf)
            periods.append((one.version, one.created, until))
    return {version for version, begin, until in periods if begin <= end and int(start) <= until}


def _sound_versions(module: Module) -> Iterator[Module]:
    for number in kept_numbers(module.path):
        with suppress(ManifestError):
            yield kept_version(module, number)


def carry_over(
    directory: Path, staged: Path, manifest: ModuleManifest, keep: int, without: Collection[int] = ()
) -> None:
    """Give `staged`, which is about to take the place of the module in `directory`, `keep` of that one's versions.

    The served one comes first, unless it is damaged; then the newest, but those `without` these numbers. `manifest` is
    that of `staged`: what both have in common is stored once. Raises OSError.
    """
    try:
        served = parse_module(directory)
    except ManifestError:
        served = None
    if keep and served and _is_unchanged(served):
        link_files(directory, staged / VERSIONS / str(served.version), _same_files(served, staged, manifest))
        keep -= 1
    for number in [number for number in kept_numbers(directory) if number not in without][:keep]:
        link_files(directory / VERSIONS / str(number), staged / VERSIONS / str(number))
    if (staged / VERSIONS).exists():
        sync_directory(staged / VERSIONS)


def link_files(source: Path, destination: Path, instead: Mapping[str, Path] | None = None) -> None:
    """Make the directory `destination` with hard links to the files of `source`; a copy where there can be no link.

    `instead`: file name -> an equal file elsewhere to link to.
    """
    destination.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file():
            _link((instead or {}).get(path.name, path), destination / path.name)
    sync_directory(destination)


def _link(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except OSError:  # not every file system has hard links
        shutil.copyfile(source, destination)
        with destination.open("rb+") as file:
            os.fsync(file.fileno())


def _same_files(served: Module, staged: Path, manifest: ModuleManifest) -> dict[str, Path]:
    """Name of a file of `served` -> the one in `staged` that has the same content."""
    new = {file.blake3: staged / file.name for file in manifest.stored or manifest.files}
    same = {path.name: new[file.blake3] for path, file in served.on_disk if file.blake3 in new}
    return {name: path for name, path in same.items() if path.exists()}


def _is_unchanged(module: Module) -> bool:
    """Whether its files are still there; linked ones must not have been touched since."""
    try:
        check_stored(module)
    except ManifestError:
        return False
    times = {link.path: link.modified_ns for link in module.links.values()}
    return all(Path(path).stat().st_mtime_ns == time for path, time in times.items())
