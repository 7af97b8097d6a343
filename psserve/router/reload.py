"""Taking over a rewritten configuration file at SIGHUP: modules and workers come and go, requests in flight go on.

A signal and a file rather than an endpoint: there is nothing that clients could reach, a router that restarts meanwhile
reads the same file, and only this user (the supervisor) can send the signal or write the file.
"""

from __future__ import annotations

import logging
from pathlib import Path

from psserve.errors import UsageError
from psserve.router.config import load_config
from psserve.router.state import RouterState

log = logging.getLogger("psserve.router")


def reload(state: RouterState, path: Path) -> None:
    """Serve what `path` says now. A file that cannot be taken over is logged, and changes nothing."""
    try:
        config = load_config(path)
        state.reconfigure(config)
    except UsageError as error:
        log.error("configuration not taken over: %s", error)
        return
    modules = ",".join(module.name for module in config.modules)
    workers = ",".join(worker.name for worker in config.workers)
    log.info("configuration serial=%d modules=%s workers=%s", config.serial, modules, workers)
