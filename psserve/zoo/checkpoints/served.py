"""Whether a base is served as Transformers computes it: when its zoo is made, and again if an older psserve made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.architectures import TABLE, config_problems
from psserve.zoo.checkpoints.checkpoint import COUNTS, Checkpoint, check_config, check_counts, understand_config
from psserve.zoo.checkpoints.rotary import context_limit
from psserve.zoo.disk.model import Base
from psserve.zoo.disk.storage import read_json


def check_served(base: Checkpoint) -> None:
    """Raise IncompatibleCheckpoint if a base's configuration asks for what is not served exactly.

    Modules need no check of their own: what is looked at must be as the base has it.
    """
    check_configuration(base.path / "config.json", base.architecture, base.config)


def check_configuration(path: Path, architecture: str, config: dict[str, Any]) -> None:
    """`check_served` of the configuration at `path`, as Transformers understands it."""
    row = TABLE[architecture]
    if config.get("model_type") != row.model_type:
        raise IncompatibleCheckpoint(
            f"{path}: model_type is {config.get('model_type')!r}, and {row.name} goes with {row.model_type!r}"
        )
    if problem := next(config_problems(row, config), None):
        raise IncompatibleCheckpoint(f"{path}: {row.name} cannot be served with this: {problem}")


def check_made_before(base: Base) -> None:
    """Hold the base of a zoo that an older psserve made (`checks` below CHECKS) to the checks that were added since.

    Raises IncompatibleCheckpoint. Only the configuration is read.
    """
    path = base.path / "config.json"
    architecture = check_config(base.path, read_json(path))
    config = understand_config(base.path)
    check_counts(path, config, COUNTS + TABLE[architecture].counts)
    check_recorded(base, architecture, config)


def check_recorded(base: Base, architecture: str, config: dict[str, Any]) -> None:
    """Raise IncompatibleCheckpoint if the base of a zoo could be none today, or not with the context that it says.

    `config` is the base's, as Transformers understands it.
    """
    check_configuration(base.path / "config.json", architecture, config)
    if base.context_length > (longest := context_limit(config)):
        raise IncompatibleCheckpoint(
            f"{base.path}: the zoo says a context of {base.context_length} tokens, and {longest} can be served: "
            f"set context_length to {longest} in zoo.toml"
        )
