"""The import of a module: everything is checked, then it is made beside its place, and put there in one step."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.adapters import write_form
from psserve.zoo.adding.incoming import TRAINING_RECORD, Incoming, find_incoming
from psserve.zoo.adding.source import Source
from psserve.zoo.adding.storing import check_store, store_weights, write
from psserve.zoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from psserve.zoo.checkpoints.compatibility import check_compatible, warnings
from psserve.zoo.checkpoints.safetensors import check_finite
from psserve.zoo.checkpoints.served import check_served
from psserve.zoo.checkpoints.settings import module_settings
from psserve.zoo.disk.forms import form_directory
from psserve.zoo.disk.manifest import (
    MODULE_MANIFEST,
    FileRecord,
    ModuleManifest,
    Store,
    SuccessionRecord,
    write_manifest,
)
from psserve.zoo.disk.model import Base
from psserve.zoo.disk.progress import SILENT, Progress
from psserve.zoo.disk.scan import scan_modules
from psserve.zoo.disk.storage import check_space
from psserve.zoo.disk.transactions import publish, staging
from psserve.zoo.disk.versions import KEEP_VERSIONS, VERSIONS, carry_over, next_number, served_number, succession_in


@dataclass(frozen=True)
class NewModule:
    """What the user says about a module to import."""

    name: str
    source: Source
    task: str = ""
    examples: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    allow_naive: bool = False
    store: Store | None = None
    """None: LoRA adapters as such, where servers can serve them so, and all else as copies."""
    keep_versions: int = KEEP_VERSIONS
    """How many versions of the module stay, with this one."""
    candidate: bool = False
    """Whether it only becomes one of the kept versions, beside the module as it is."""


def import_module(zoo: Path, base: Base, new: NewModule, progress: Progress = SILENT) -> int:
    """Check `new` and store it in `modules/NAME` of the zoo at `zoo`, whose lock the caller holds.

    Returns the number of its version. Raises IncompatibleCheckpoint, UsageError (it cannot be stored so), or ZooError
    (no room). The zoo is unchanged unless this returns.
    """
    base_checkpoint = read_checkpoint(base.path)
    check_served(base_checkpoint)  # an older psserve may have made the zoo
    incoming = find_incoming(new.source.path, str(new.source), base, base_checkpoint, new.store)
    check_compatible(base.name, base_checkpoint, incoming.checkpoint)
    store = new.store or ("adapter" if incoming.adapter else "copy")
    check_store(incoming, store)
    trained_for_base = check_trained(new, base, incoming)
    progress.stage("checking", incoming.size)
    zero = check_finite(incoming.files, incoming.path, progress)
    check_space(zoo, 0 if store == "link" else incoming.size)

    place = zoo / "modules" / new.name
    with staging(zoo) as directory:
        settings = module_settings(base_checkpoint, incoming.checkpoint)
        dtype, quantisation = own_format(base_checkpoint, incoming.checkpoint)
        stored = store_weights(store, incoming, base_checkpoint, directory, progress)
        shape = None
        if incoming.adapter:
            form = form_directory(zoo, new.name, stored.files)
            shape = write_form(replace(incoming.adapter, path=directory), base_checkpoint, form)
        version, now = next_number(place), int(time.time())
        manifest = ModuleManifest(
            name=new.name,
            task=new.task,
            examples=new.examples,
            aliases=new.aliases,
            version=version,
            previous=served_number(place),
            succession=() if new.candidate else (*succession_in(place), SuccessionRecord(version=version, date=now)),
            kind="cache-conditioned" if trained_for_base else "naive",
            created=now,
            base_fingerprint=base.fingerprint,
            notes=(
                *incoming.notes,
                *warnings(base_checkpoint, incoming.checkpoint),
                *settings.notes,
                *ownership_warnings(incoming.path),
                *zero_warnings(incoming, zero),
                *same_weights(zoo, base, new.name, stored.files),
            ),
            training=incoming.training,
            dtype=dtype,
            quantisation=quantisation,
            origin=incoming.origin,
            store=store,
            files=stored.files,
            stored=stored.stored,
            settings=tuple(write(directory / name, [content]) for name, content in settings.files.items()),
            links=stored.links,
            adapter=shape,
        )
        if not new.candidate:
            carry_over(place, directory, manifest, new.keep_versions - 1)
        write_manifest(directory / MODULE_MANIFEST, manifest)
        publish(directory, place / VERSIONS / str(manifest.version) if new.candidate else place)
    return manifest.version


def own_format(base: Checkpoint, module: Checkpoint) -> tuple[str | None, str | None]:
    """A module's element type and quantisation for its manifest, where they may be unlike the base's."""
    if base.quantisation == module.quantisation:
        return None, None
    return module.dtype, str(module.quantisation or "none")


def check_trained(new: NewModule, base: Base, incoming: Incoming) -> bool:
    """Whether the module was trained on this base's KV cache; if not, `allow_naive` must have been given.

    IncompatibleCheckpoint, whatever was given, for one that was trained by a rule that no server follows.
    """
    training = incoming.training
    if training is not None and training.method == "icarus":
        raise IncompatibleCheckpoint(
            f"{incoming.path}: trained by ICaRus' rule (psserve finetune --icarus), where the base computes the KV of "
            "generated tokens too: psserve's servers let the module compute it, and its answers would be others: train "
            "it without --icarus to serve it"
        )
    if training is None:
        why = f"no {TRAINING_RECORD} says that it was trained on the base's KV cache"
    elif training.base_fingerprint != base.fingerprint:
        theirs, ours = training.base_fingerprint[:12], base.fingerprint[:12]
        why = f"it was trained with another base (fingerprint {theirs}, base {base.name!r} has {ours})"
    elif training.method != "cache-conditioned":
        why = f"its training method is {training.method!r}, not 'cache-conditioned'"
    else:
        return True
    if not new.allow_naive:
        raise IncompatibleCheckpoint(f"{incoming.path}: {why}: answers may be poor; add it anyway with --allow-naive")
    return False


def same_weights(zoo: Path, base: Base, name: str, files: tuple[FileRecord, ...]) -> Iterator[str]:
    """Warnings if the module is the base or another module under another name, which is likely a mistake."""
    hashes = {file.blake3 for file in files}
    if hashes <= {file.blake3 for file in base.files}:
        yield "the weights are the base's own: was the right directory given?"
    for module in scan_modules(zoo, base).modules:
        if module.name != name and hashes == {file.blake3 for file in module.files}:
            yield f"the weights are those of module {module.name!r}: was the right directory given?"


def zero_warnings(incoming: Incoming, zero: Sequence[str]) -> Iterator[str]:
    """Warnings about matrices that hold nothing but zeros. One of a pair is nothing special in an adapter."""
    if incoming.adapter is None:
        yield from (f"tensor {name} holds nothing but zeros" for name in zero)
    elif len(zero) >= len(incoming.adapter.layers):
        yield "the adapter changes nothing: was the right directory given?"


def ownership_warnings(directory: Path) -> Iterator[str]:
    """A warning if `directory` is another user's, or one that everybody may write to."""
    info = directory.stat()
    if info.st_mode & stat.S_IWOTH:
        yield f"{directory}: everybody on this machine may write there"
    if info.st_uid not in (os.getuid(), 0):
        yield f"{directory}: owned by user {info.st_uid}, not by you"
