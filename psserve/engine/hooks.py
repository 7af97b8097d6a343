"""Declaring hooks on SGLang's functions, and making sure that they took.

SGLang's HookRegistry logs and swallows every failure: a function that another release renamed would be served
unhooked, with wrong answers and nothing else to see. So psserve declares its hooks as data, applies them, and then
looks at every target itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from psserve.errors import HookMissing


class Kind(Enum):
    """How a hook meets its target; the names are SGLang's HookType."""

    BEFORE = "BEFORE"
    AFTER = "AFTER"
    AROUND = "AROUND"
    REPLACE = "REPLACE"


@dataclass(frozen=True)
class Hook:
    """One hook: `target` is a dotted path, `function` has the signature that SGLang's HookType asks for."""

    target: str
    kind: Kind
    function: Callable[..., Any]


def apply(hooks: Iterable[Hook], sglang_version: str) -> None:
    """Register and apply the hooks in this process.

    Raises HookMissing, naming target and version, if one did not take.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    hooks = tuple(hooks)
    for hook in hooks:
        _import_owner(hook.target, sglang_version)
        HookRegistry.register(hook.target, hook.function, HookType[hook.kind.value])
    HookRegistry.apply_hooks()
    missing = sorted({hook.target for hook in hooks if not is_wrapped(hook.target)})
    if missing:
        raise HookMissing(
            f"sglang {sglang_version} has no hookable {', '.join(missing)}: this release does not fit psserve's hooks, "
            "and serving without them would give wrong answers. Install a supported release of sglang"
        )


def _import_owner(target: str, sglang_version: str) -> None:
    """Import the module that a target lives in, so that a broken import is reported as itself and not as a rename."""
    module = target.rpartition(".")[0]
    while module:
        try:
            importlib.import_module(module)
            return
        except ModuleNotFoundError as error:
            if error.name != module:  # a dependency is missing, not the module itself
                raise HookMissing(
                    f"sglang {sglang_version}: cannot import {module} to hook {target}: {error}. Run `make setup` again"
                ) from error
        module = module.rpartition(".")[0]


def is_wrapped(target: str) -> bool:
    """Whether the function at a dotted path carries a hook's wrapper."""
    path, _, name = target.rpartition(".")
    try:
        owner = pkgutil.resolve_name(path)
    except (ImportError, AttributeError):
        return False
    found = vars(owner).get(name)
    found = getattr(found, "__func__", found)  # static and class methods keep the wrapper inside
    return hasattr(found, "__wrapped__")
