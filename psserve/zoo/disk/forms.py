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
    served = set(served_forms(zoo))
    for directory in (zoo / FORMS).glob("*/"):
        forms = sorted(path for path in directory.glob("*/") if path.resolve() not in served)
        if (zoo / "modules" / directory.name / MODULE_MANIFEST).exists():
            if len(forms) > 1:
                remove_others(zoo, directory.name, forms)
        else:
            remove(directory, forms)
            if not any(directory.glob("*/")):
                shutil.rmtree(directory)


def served_forms(zoo: Path) -> Iterator[Path]:
    """The forms that a fleet links to."""
    for link in (zoo / SERVED).glob("*"):
        if link.is_symlink():
            yield link.resolve()


def remove_others(zoo: Path, name: str, forms: Sequence[Path]) -> None:
    """Delete all `forms` but that of the module `name` as it is; none if its manifest is damaged."""
    try:
        files = read_manifest(zoo / "modules" / name / MODULE_MANIFEST, ModuleManifest).files
    except ManifestError:
        return
    current = form_directory(zoo, name, files)
    remove(current.parent, [form for form in forms if form != current])


def remove(directory: Path, forms: Sequence[Path]) -> None:
    """Delete forms of one module, unless somebody makes one there just now: then when that is done."""
    if forms:
        with lock(directory / ".lock"):
            for form in forms:
                shutil.rmtree(form, ignore_errors=True)
