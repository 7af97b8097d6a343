"""What must lie on disk before a fleet starts, and what is taken away when it ends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from psserve.contracts.router_config import RouterConfig
from psserve.errors import FleetError, UnknownModule
from psserve.fleet.plan.spec import FleetPlan
from psserve.fleet.run.adapters import link_adapters, remove_adapters
from psserve.fleet.run.checkpoints import make_named, remove_checkpoints, weights_of
from psserve.zoo import Module, Zoo
from psserve.zoo.disk.progress import Progress
from psserve.zoo.disk.storage import write_atomically


def make_run_dir(run: Path) -> None:
    """The fleet's private folder.

    Raises:
        FleetError: it cannot be made or is another user's.
    """
    private_dir(run)
    private_dir(run / "logs")


def prepare(plan: FleetPlan, check: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Materialise checkpoints, link adapters, write the router's configuration (0600), set old logs aside.

    `check` is called again and again on the way, which may take minutes: it ends it by raising.

    Returns:
        Module -> which weights it will be served with (`checkpoints.weights_of`).

    Raises:
        FleetError: a folder cannot be written, or the zoo keeps a planned version of a module no more.
        ZooError: a module cannot be materialised.
    """
    private_dir(plan.tmp_dir)
    weights = _make_all(plan, check) if plan.checkpoints or plan.adapters else {}
    for process in (*plan.servers, plan.router):
        set_aside(process.log)
    write_router_config(plan, plan.router.config)
    return weights


def clean_up(plan: FleetPlan) -> None:
    """Remove secrets, checkpoints, links and temporary files. Logs stay."""
    plan.router.config_path.unlink(missing_ok=True)
    remove_checkpoints(plan.run_dir)
    remove_adapters(plan.run_dir)
    shutil.rmtree(plan.tmp_dir, ignore_errors=True)


def write_router_config(plan: FleetPlan, config: RouterConfig) -> None:
    """Replace the router's configuration in one step (0600: it holds keys). Raises OSError; the old file then stays."""
    write_atomically(plan.router.config_path, config.model_dump_json(indent=1).encode(), 0o600, durable=False)


def set_aside(log: Path) -> None:
    """Keep the log of the server before this one as NAME.log.1."""
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))


def _make_all(plan: FleetPlan, check: Callable[[], None]) -> dict[str, str]:
    """The checkpoints and the folder of adapters, of the versions that were planned, whatever the zoo serves now.

    Of adapters, of which there may be many, the zoo is read once.
    """
    zoo, progress = Zoo.open(plan.zoo), _Checked(check)
    versions = {module.name: f"{module.name}@{module.shown_version}" for module in plan.router.config.modules}
    private_dir(plan.run_dir / "checkpoints")
    made: list[Module] = []
    try:
        for checkpoint in plan.checkpoints:
            check()
            made.append(make_named(zoo, versions[checkpoint.module], checkpoint.path, progress))
        made += link_adapters(zoo, plan.run_dir, {one.name: versions[one.module] for one in plan.adapters}, check)
    except UnknownModule as error:
        raise FleetError(f"{error}: the zoo was changed while the fleet was prepared; launch it again") from error
    return {module.name: weights_of(module) for module in made}


class _Checked(Progress):
    """Long work on files that `check` can end."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def stage(self, what: str, size: int) -> None:
        self._check()

    def advance(self, size: int) -> None:
        self._check()


def private_dir(path: Path) -> None:
    """Make a folder of this user's own (0700), or see that it is one. Raises FleetError."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        info = path.lstat()
        if not path.is_dir() or path.is_symlink() or info.st_uid != os.getuid():
            raise FleetError(f"{path} is not a folder of this user's own; remove it")
        path.chmod(0o700)
    except OSError as error:
        raise FleetError(f"cannot make the folder {path}: {error.strerror}") from error
