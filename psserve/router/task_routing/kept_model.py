"""Trained models kept in the user's cache folder, so that the same modules are trained once and not at every start."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

KEPT = 32
"""Models of so many sets of modules; those used last stay."""
_MADE_BY = ("background.py", "tfidf.py", "training.py")
_NO_CACHE = (OSError, RuntimeError)
"""The folder cannot be used, or there is no home folder: every start trains."""


class KeptModel:
    """The place of the model of these modules (JSON), as this psserve and this scikit-learn train it."""

    def __init__(self, modules: bytes) -> None:
        digest = sha256(version("scikit-learn").encode())
        for part in (*(Path(__file__).with_name(name).read_bytes() for name in _MADE_BY), modules):
            digest.update(sha256(part).digest())
        self._name = digest.hexdigest()

    def read(self) -> bytes | None:
        """What was kept, if anything."""
        with suppress(*_NO_CACHE):
            path = _folder() / self._name
            os.utime(path)
            return path.read_bytes()
        return None

    def write(self, model: bytes) -> None:
        """Keep `model`, and forget what was not used for long."""
        with suppress(*_NO_CACHE):
            folder = _folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".") as own:  # readers never see half of it
                Path(own, self._name).write_bytes(model)
                Path(own, self._name).replace(folder / self._name)
            used = sorted(folder.glob("[!.]*"), key=lambda path: path.stat().st_mtime)
            for path in used[:-KEPT]:
                path.unlink()


def _folder() -> Path:
    """By the XDG base directory specification, which ignores relative paths. Raises RuntimeError: no home folder."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "psserve" / "task-classifier"
