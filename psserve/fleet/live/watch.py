"""Noticing that a zoo has changed on disk."""

from __future__ import annotations

import time
from pathlib import Path

from psserve.zoo.disk.manifest import MODULE_MANIFEST

_EVERY_S = 1.0

Signature = frozenset[tuple[str, int, int, int]]


class ZooWatch:
    """Looks at the modules' manifests once a second: a manifest is written last, so then its module is complete."""

    def __init__(self, zoo: Path) -> None:
        self._modules = zoo / "modules"
        self._next = 0.0
        self._known = self._last = self._look()

    def changed(self) -> bool:
        """Whether the zoo differs from what it was when this was last true, and has come to rest (for a second)."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _EVERY_S
        last, self._last = self._last, self._look()
        if self._last == self._known or self._last != last:
            return False
        self._known = self._last
        return True

    def _look(self) -> Signature:
        found = set()
        for manifest in self._modules.glob(f"*/{MODULE_MANIFEST}"):
            try:
                info = manifest.stat()
            except OSError:  # it has just been moved
                continue
            found.add((manifest.parent.name, info.st_ino, info.st_mtime_ns, info.st_size))
        return frozenset(found)
