"""Whether a base is served as Transformers computes it: when its zoo is made, and again if an older psserve made it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.architectures import TABLE, Architecture
from psserve.zoo.checkpoints.checkpoint import COUNTS, Checkpoint, check_config, check_counts, understand_config
from psserve.zoo.checkpoints.layers import Config
from psserve.zoo.checkpoints.rotary import context_limit, rotary_problems
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


def config_problems(row: Architecture, config: Config) -> Iterator[str]:
    """What in a configuration of this architecture is not served as Transformers computes it, in words."""
    yield from window_problems(row.windows, config)
    if config.get("hidden_act", "silu") != "silu":
        yield f"hidden_act is {config['hidden_act']!r}, and SGLang has 'silu' alone"
    yield from rotary_problems(row.rotary, row.partial_rotary, config)
    for name, value in row.fixed.items():
        if config.get(name, value) != value:
            yield f"{name} is {json.dumps(config[name])}, and SGLang computes as if it were {json.dumps(value)}"


def window_problems(windows: bool, config: Config) -> Iterator[str]:
    """What tells of attention that does not see the whole context; with `windows`, other than by a window."""
    kinds = config.get("layer_types")
    served = ("full_attention", "sliding_attention") if windows else ("full_attention",)
    others = [kind for kind in kinds if kind not in served] if isinstance(kinds, list) else []
    if others:
        yield f"layers of {others[0]} (layer_types), whose KV SGLang keeps otherwise"
    window, context = config.get("sliding_window"), config["max_position_embeddings"]
    if windows:
        if type(window) is not int or window < 1:
            yield f"sliding_window is {window!r}, not a number of tokens"
        return
    if not others and window is not None and not (type(window) is int and window >= context):
        yield (
            f"a sliding window of {window!r} tokens in a context of {context} (sliding_window), which SGLang ignores or"
            " keeps otherwise"
        )
