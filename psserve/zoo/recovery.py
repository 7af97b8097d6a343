"""The zoo's lock, and the end of what a killed command had begun under it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psserve.zoo.removal import REMOVED, discard
from psserve.zoo.renaming import finish_renaming
from psserve.zoo.staging import clean_up_import
from psserve.zoo.storage import lock
from psserve.zoo.stores import prune_rebuilt

LOCK = ".lock"


@contextmanager
def changing(zoo: Path) -> Iterator[None]:
    """Hold the lock of the zoo at `zoo`, whose leftovers are cleaned up first. Raises ZooError if it is taken."""
    with lock(zoo / LOCK):
        recover(zoo)
        yield
        prune_rebuilt(zoo)


def recover(zoo: Path) -> None:
    """Finish or undo what a killed command left. The caller holds the lock, so that nobody is at it now."""
    clean_up_import(zoo)
    discard(zoo / REMOVED)
    prune_rebuilt(zoo)
    for pattern in ("", "modules/*/"):
        for temporary in zoo.glob(f"{pattern}.*.tmp"):
            temporary.unlink()
    for directory in (zoo / "modules").glob("*/"):
        finish_renaming(directory)
