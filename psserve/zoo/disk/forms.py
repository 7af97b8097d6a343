"""Where the serving forms of adapters are: `.adapters/NAME/DIGEST/`, and which of them may go.

DIGEST says what a form is made of, so that a replaced adapter gets another directory. The form that a running fleet
links to stays as long as it does: requests may be on their way to it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from psserve.errors import ManifestError
from psserve.zoo.disk.manifest import MODULE_MANIFEST, FileRecord, ModuleManifest, hash_bytes, read_manifest
from psserve.zoo.disk.storage import lock

FORM = 1
"""How forms are made; raised when the same adapter would give other files."""
FORMS = ".adapters"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""PEFT's name of an adapter's weights: a module that has none is no adapter."""
SERVED = ".run/adapters"
"""Where, in the zoo, a fleet keeps its links to the forms that it serves."""


def form_directory(zoo: Path, name: str, files: Sequence[FileRecord]) -> Path:
    """Where the serving form of the adapter `files` of module `name` is, if it was made."""
    made_of = "".join(file.blake3 for file in files)
    return zoo / FORMS / name / hash_bytes(f"{FORM} {made_of}".encode())[:16]


def prune_forms(zoo: Path) -> None:
    """Delete the forms that no module has and no fleet serves. The caller holds the lock of the zoo at `zoo`.

    No module's manifest is read but of those that have several.
    """
    for directory in (zoo / FORMS).glob("*/"):
        forms = sorted(directory.glob("*/"))
        if not (zoo / "modules" / directory.name / ADAPTER_WEIGHTS).exists():
            remove(zoo, directory, forms)
        elif len(forms) > 1:
            remove_others(zoo, directory, forms)


def remove_others(zoo: Path, directory: Path, forms: Sequence[Path]) -> None:
    """Delete all `forms` of a module but that of what it is now; none if its manifest is damaged."""
    try:
        files = read_manifest(zoo / "modules" / directory.name / MODULE_MANIFEST, ModuleManifest).files
    except ManifestError:
        return
    current = form_directory(zoo, directory.name, files)
    remove(zoo, directory, [form for form in forms if form != current])


def remove(zoo: Path, directory: Path, forms: Sequence[Path]) -> None:
    """Delete those of `forms` that no fleet serves, and `directory` if none is left.

    If somebody makes one there just now, then when that is done.
    """
    served = set(served_forms(zoo))
    with lock(directory / ".lock"):
        for form in forms:
            if form.resolve() not in served:
                shutil.rmtree(form.rename(form.with_suffix(".removed")), ignore_errors=True)  # never half of one
        if not any(directory.glob("*/")):
            shutil.rmtree(directory)


def served_forms(zoo: Path) -> Iterator[Path]:
    """The forms that a fleet links to."""
    for link in (zoo / SERVED).glob("*"):
        if link.is_symlink():
            yield link.resolve()
