"""Trained models kept in the user's cache folder, so that the same modules are trained once and not at every start."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

KEPT = 32
"""Models of so many sets of modules; those used last stay."""
LEFT_OVER_S = 3600.0
"""No writer takes so long: what it wrote beside the models, to put it there whole, was left over."""
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
            model = path.read_bytes()
            with suppress(OSError):  # a cache that is only read serves, too
                os.utime(path)
            return model
        return None

    def write(self, model: bytes) -> None:
        """Keep `model`, and forget what was not used for long."""
        with suppress(*_NO_CACHE):
            folder = _folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".") as own:  # readers never see half of it
                Path(own, self._name).write_bytes(model)
                Path(own, self._name).replace(folder / self._name)
            now = _mtime(folder / self._name)  # by the clock of those files
            used = sorted(folder.glob("[!.]*"), key=_mtime)
            for path in used[:-KEPT]:
                path.unlink(missing_ok=True)
            for left_over in folder.glob(".*"):  # of a writer that was killed
                if now - _mtime(left_over) > LEFT_OVER_S:
                    shutil.rmtree(left_over)


def _mtime(path: Path) -> float:
    return path.stat().st_mtime


def _folder() -> Path:
    """By the XDG base directory specification, which ignores relative paths. Raises RuntimeError: no home folder."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "psserve" / "task-classifier"
