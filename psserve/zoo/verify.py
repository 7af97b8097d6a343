"""Whether a zoo is what its manifests say, and still fits together. Every byte is read again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from psserve.errors import ManifestError, ZooError
from psserve.zoo.checkpoints.checkpoint import Checkpoint, check_head, read_checkpoint
from psserve.zoo.checkpoints.compatibility import check_compatible, fingerprint
from psserve.zoo.checkpoints.lora import Adapter, merged_file, read_adapter
from psserve.zoo.checkpoints.safetensors import check_finite, weight_file
from psserve.zoo.checkpoints.served import check_recorded
from psserve.zoo.checkpoints.serving_form import make_form
from psserve.zoo.disk.forms import ADAPTER_WEIGHTS, form_directory, served_forms
from psserve.zoo.disk.manifest import MODULE_MANIFEST, FileRecord, hash_file
from psserve.zoo.disk.model import Base, Module, check_file
from psserve.zoo.disk.progress import SILENT, Progress, with_progress
from psserve.zoo.disk.scan import Scan, check_usable, parse_module
from psserve.zoo.disk.transactions import REBUILT
from psserve.zoo.disk.versions import VERSIONS, kept_numbers, kept_version
from psserve.zoo.materialise import make_links
from psserve.zoo.stores import checkpoint_files, rebuilt_directory
from psserve.zoo.zoo import Zoo


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with the base or the module `name`."""

    name: str
    problem: str


def verify(zoo: Zoo, name: str | None = None, progress: Progress = SILENT) -> Iterator[Finding]:
    """All that is wrong with the zoo, or with its module (or alias) `name` alone. `zoo` may be one of `Zoo.read`.

    Kept versions are looked at, too, as NAME@VERSION, which `name` can be. Raises UnknownModule. What other commands
    change meanwhile is no fault: a module that changed is looked at again.
    """
    scan = zoo.scan()
    directories = places_of(zoo, scan, name) if name else module_places(zoo.path)
    wrong = [Finding(zoo.base.name, problem) for problem in check_base(zoo.base, progress)] if name is None else []
    yield from wrong
    base = None if wrong else read_base(zoo.base)
    if name and base is None:
        yield Finding(name, f"the base at {zoo.base.path} cannot be read to compare with: run `psserve verify`")
    for directory in directories:
        for problem in settled_problems(zoo, scan, base, directory, progress):
            yield Finding(place_name(directory), problem)


def module_places(zoo: Path) -> list[Path]:
    """Every directory where a module, or a version of one, is or should be."""
    modules = sorted(path for path in (zoo / "modules").glob("*") if path.is_dir())
    return [place for module in modules for place in with_versions(module)]


def places_of(zoo: Zoo, scan: Scan, name: str) -> list[Path]:
    """The directories of one module (NAME) and its versions, or of one version (NAME@VERSION)."""
    owner, _, version = name.partition("@")
    directory = zoo.path / "modules" / scan.owner(owner)
    return [zoo.module(name).path] if version else with_versions(directory)


def with_versions(directory: Path) -> list[Path]:
    """A module's directory, and those of its kept versions."""
    return [directory, *(directory / VERSIONS / str(number) for number in kept_numbers(directory))]


def is_version(directory: Path) -> bool:
    """Whether a module's version is or should be there, and not the module."""
    return directory.parent.name == VERSIONS


def place_name(directory: Path) -> str:
    """What is there, as commands call it: NAME or NAME@VERSION."""
    return f"{directory.parent.parent.name}@{directory.name}" if is_version(directory) else directory.name


def check_base(base: Base, progress: Progress) -> Iterator[str]:
    """What is wrong with the base."""
    wrong = list(
        check_contents([(base.path / file.name, file) for file in base.files], f"base {base.name!r}", progress)
    )
    yield from wrong
    if wrong:
        return
    try:
        checkpoint = read_checkpoint(base.path)
        if fingerprint(checkpoint, base.files) != base.fingerprint:
            yield f"{base.path}: its files are as recorded, but not its fingerprint: restore zoo.toml"
        check_recorded(base, checkpoint.architecture, checkpoint.config)
        check_head(checkpoint)
        check_numbers(checkpoint, base.path, base.name, progress)
    except ZooError as error:
        yield str(error)


def read_base(base: Base) -> Checkpoint | None:
    """The base, to compare modules with; None if it cannot be read."""
    try:
        return read_checkpoint(base.path)
    except ZooError:
        return None


def settled_problems(zoo: Zoo, scan: Scan, base: Checkpoint | None, directory: Path, progress: Progress) -> list[str]:
    """What is wrong with a module that no other command changed while it was looked at; nothing if it is gone."""
    while True:
        before = manifest_content(directory)
        problems = list(dict.fromkeys(check_module(zoo, scan, base, directory, progress)))
        if not problems or not directory.exists():
            return []
        if before == manifest_content(directory):
            return problems
        scan = zoo.scan()


def manifest_content(directory: Path) -> bytes | None:
    """The module's manifest as it is now."""
    try:
        return (directory / MODULE_MANIFEST).read_bytes()
    except OSError:
        return None


def check_module(zoo: Zoo, scan: Scan, base: Checkpoint | None, directory: Path, progress: Progress) -> Iterator[str]:
    """What is wrong with the module in `directory`: with its manifest, its files, and with what would be served."""
    if not (directory / MODULE_MANIFEST).exists():
        yield f"{directory}: no {MODULE_MANIFEST}, so no module: restore the file, or delete the directory"
        return
    if place_name(directory) in scan.damaged:
        yield str(scan.damaged[directory.name])
    try:
        module = read_place(zoo, directory)
    except ManifestError as error:
        yield str(error)
        return
    if module.kind == "cache-conditioned" and module.training_for(zoo.base) != "on cache":
        yield f"{directory / MODULE_MANIFEST}: kind is {module.kind!r}, but no record says so: import it again"
    wrong = list(check_contents([*module.on_disk, *module.settings_on_disk], f"module {module.name!r}", progress))
    yield from wrong
    yield from check_rebuilt(zoo, module, progress)
    if base and not wrong and module.adapter:
        yield from check_adapter(zoo, base, module, progress)
    elif base and not wrong:
        yield from check_served(zoo, base, module, progress)


def read_place(zoo: Zoo, directory: Path) -> Module:
    """The module or the version in `directory`. ManifestError: it says nothing sound, or it is a version for no use."""
    if not is_version(directory):
        return parse_module(directory)
    version = kept_version(parse_module(directory.parent.parent), int(directory.name))
    check_usable(version, zoo.base)
    return version


def check_adapter(zoo: Zoo, base: Checkpoint, module: Module, progress: Progress) -> Iterator[str]:
    """What is wrong with an adapter, by the checks of an import, and with the form of it that servers load."""
    try:
        adapter = read_adapter(module.path, base)
        files = [weight_file(module.path / ADAPTER_WEIGHTS)]
        progress.stage(f"checking {module.name}", files[0].size)
        check_finite(files, module.path, progress)
        form = form_directory(zoo.path, module.name, module.files)
        if form.exists() and not is_made_of(form, adapter, base):
            served = form.resolve() in served_forms(zoo.path)
            first = "stop the fleet that serves it, then " if served else ""
            yield f"{form}: not what the adapter gives: {first}delete it: it will be made again"
        yield from check_merged(zoo, module, adapter, base, progress)
    except ZooError as error:
        yield str(error)


def is_made_of(form: Path, adapter: Adapter, base: Checkpoint) -> bool:
    """Whether a directory has an adapter's serving form, to the byte."""
    files = {form / name: content for name, content in make_form(adapter, base).files().items()}
    return all(path.is_file() and path.read_bytes() == content for path, content in files.items())


def check_rebuilt(zoo: Zoo, module: Module, progress: Progress) -> Iterator[str]:
    """What is wrong with the files that the last start rebuilt of a delta, and the next one will load."""
    kept = rebuilt_directory(zoo.path / REBUILT / module.name, module)
    if module.store == "delta" and kept.exists():
        files = [(kept / file.name, file) for file in module.files]
        for problem in check_contents(files, f"what was rebuilt of module {module.name!r}", progress):
            yield f"{problem}, or delete {kept}: it will be rebuilt"


def check_merged(zoo: Zoo, module: Module, adapter: Adapter, base: Checkpoint, progress: Progress) -> Iterator[str]:
    """What is wrong with the base's weights that the last start merged the adapter into, and the next one will load."""
    kept = rebuilt_directory(zoo.path / REBUILT / module.name, module)
    for shard in base.shards if kept.exists() else ():
        merged = merged_file(weight_file(shard), adapter)
        progress.stage(f"merging {module.name}", merged.size)
        if not has_content(kept / shard.name, with_progress(merged.blocks(), progress)):
            yield f"{kept / shard.name}: not what merging the adapter gives: delete {kept}: it will be merged again"


def has_content(path: Path, blocks: Iterable[bytes]) -> bool:
    """Whether a file has these bytes and no others."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return all(file.read(len(block)) == block for block in blocks) and not file.read(1)


def check_contents(files: Iterable[tuple[Path, FileRecord]], what: str, progress: Progress) -> Iterator[str]:
    """What is wrong with files that should be as recorded, as parts of `what`."""
    files = list(files)
    progress.stage(f"hashing {what}", sum(file.size for _, file in files))
    for path, file in files:
        try:
            check_file(path, file, what)
            if hash_file(path, progress) != file.blake3:
                yield f"{path}: its content is not what was recorded: restore it"
        except ManifestError as error:
            yield str(error)
        except OSError as error:
            yield f"{path}: {error.strerror}: make it readable"


def check_served(zoo: Zoo, base: Checkpoint, module: Module, progress: Progress) -> Iterator[str]:
    """What is wrong with the checkpoint that a server would load, by the checks of an import."""
    with tempfile.TemporaryDirectory(prefix="psserve-verify-") as temporary:
        served = Path(temporary) / "checkpoint"
        try:
            weights = checkpoint_files(zoo.base, module, Path(temporary) / "rebuilt", progress)
            make_links(served, zoo.base.auxiliary_files | module.settings_files | weights)
            checkpoint = read_checkpoint(served)
            check_compatible(zoo.base.name, base, checkpoint)
            check_head(checkpoint)
            check_numbers(checkpoint, served, module.name, progress)
        except ZooError as error:
            yield str(error).replace(str(served), str(module.path))


def check_numbers(checkpoint: Checkpoint, where: Path, name: str, progress: Progress) -> None:
    """Raise IncompatibleCheckpoint if a weight is NaN or infinite."""
    files = [weight_file(shard) for shard in checkpoint.shards]
    progress.stage(f"checking {name}", sum(file.size for file in files))
    check_finite(files, where, progress)
