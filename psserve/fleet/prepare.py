"""What must lie on disk before a fleet starts, and what is taken away when it ends."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from psserve.errors import FleetError
from psserve.fleet.spec import FleetPlan
from psserve.zoo import Zoo, materialise


def make_run_dir(run: Path) -> None:
    """The fleet's private folder.

    Raises:
        FleetError: it cannot be made or is another user's.
    """
    _private_dir(run)
    _private_dir(run / "logs")


def prepare(plan: FleetPlan) -> None:
    """Materialise checkpoints, write the router's configuration (0600), set old logs aside.

    Raises:
        FleetError: a folder cannot be written.
        ZooError: a module cannot be materialised.
    """
    _private_dir(plan.tmp_dir)
    if plan.checkpoints:
        zoo = Zoo.open(plan.zoo)
        _private_dir(plan.run_dir / "checkpoints")
        for checkpoint in plan.checkpoints:
            materialise(zoo, zoo.module(checkpoint.module), checkpoint.path)
    for process in (*plan.servers, plan.router):
        _set_aside(process.log)
    _write_router_config(plan)


def clean_up(plan: FleetPlan) -> None:
    """Remove secrets and temporary files. Logs and checkpoints stay."""
    plan.router.config_path.unlink(missing_ok=True)
    shutil.rmtree(plan.tmp_dir, ignore_errors=True)


def _write_router_config(plan: FleetPlan) -> None:
    path = plan.router.config_path
    path.unlink(missing_ok=True)
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump({**plan.router.config, "worker_key": plan.worker_key}, file, indent=1)


def _private_dir(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        info = path.lstat()
        if not path.is_dir() or path.is_symlink() or info.st_uid != os.getuid():
            raise FleetError(f"{path} is not a folder of this user's own; remove it")
        path.chmod(0o700)
    except OSError as error:
        raise FleetError(f"cannot make the folder {path}: {error.strerror}") from error


def _set_aside(log: Path) -> None:
    """Keep the log of the fleet before this one as NAME.log.1."""
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
