"""Who else could have changed the files of a checkpoint."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def ownership_warnings(directory: Path) -> Iterator[str]:
    """A warning if `directory` is another user's, or one that everybody may write to."""
    info = directory.stat()
    if info.st_mode & stat.S_IWOTH:
        yield f"{directory}: everybody on this machine may write there"
    if info.st_uid not in (os.getuid(), 0):
        yield f"{directory}: owned by user {info.st_uid}, not by you"
