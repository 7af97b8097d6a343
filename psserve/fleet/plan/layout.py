"""Where a fleet keeps its files: `<zoo>/.run/` (0700) and a short private TMPDIR."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def run_dir(zoo: Path) -> Path:
    return zoo / ".run"


def state_path(run: Path) -> Path:
    return run / "state.json"


def lock_path(run: Path) -> Path:
    return run / "lock"


def log_path(run: Path, name: str) -> Path:
    return run / "logs" / f"{name}.log"


def router_config_path(run: Path) -> Path:
    return run / "router.json"


def trials_path(run: Path) -> Path:
    return run / "trials.json"


def measured_path(run: Path) -> Path:
    return run / "measured.json"


def memory_path(run: Path) -> Path:
    """What servers on other machines use of memory."""
    return run / "memory.json"


def adapters_dir(run: Path) -> Path:
    """Where decode servers look for adapters, by the names that the router gives them."""
    return run / "adapters"


def checkpoint_path(run: Path, module: str, version: int = 1) -> Path:
    """The checkpoint of a module's version. `~` is in no module's name."""
    return run / "checkpoints" / (module if version == 1 else f"{module}~{version}")


def decode_name(module: str, replica: int, version: int = 1) -> str:
    """A decode server's name. While a module's weights are replaced, servers of two versions run."""
    return f"decode-{module}-{replica}" if version == 1 else f"decode-{module}-{replica}-v{version}"


def tmp_dir(zoo: Path, tmp: Path | None = None) -> Path:
    """One short path a zoo and user, in `tmp` [this machine's]: the same zoo gets the same path again."""
    digest = hashlib.sha256(str(zoo.resolve()).encode()).hexdigest()[:10]
    return (tmp or Path(tempfile.gettempdir())) / f"psserve-{os.getuid()}-{digest}"
