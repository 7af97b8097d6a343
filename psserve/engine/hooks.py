"""Declaring hooks on SGLang's functions, and making sure that they took.

SGLang's HookRegistry logs and swallows every failure: a function that another release renamed would be served
unhooked, with wrong answers and nothing else to see. So psserve declares its hooks as data, applies them, and then
looks at every target itself.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
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
    with _importers_found_at_once(hooks):
        HookRegistry.apply_hooks()
    missing = sorted({hook.target for hook in hooks if not is_wrapped(hook.target)})
    if missing:
        raise HookMissing(
            f"sglang {sglang_version} has no hookable {', '.join(missing)}: this release does not fit psserve's hooks, "
            "and serving without them would give wrong answers. Install a supported release of sglang"
        )


@contextmanager
def _importers_found_at_once(hooks: Iterable[Hook]) -> Iterator[None]:
    """Have SGLang look once, and not once a hook, for the modules that imported a hooked function by name.

    It looks through all that modules have: of fifty hooks and eight thousand modules, a second and a half.
    """
    from sglang.srt.plugins import hook_registry

    one_by_one = hook_registry._propagate_patch
    importers = _importers(set(filter(None, map(_original, hooks))))

    def propagate(original: Any, wrapped: Any, source: object) -> int:
        if original not in importers:
            return int(one_by_one(original, wrapped, source))
        others = [(module, name) for module, name in importers[original] if module is not source]
        for module, name in others:
            setattr(module, name, wrapped)
        return len(others)

    hook_registry._propagate_patch = propagate
    try:
        yield
    finally:
        hook_registry._propagate_patch = one_by_one


def _original(hook: Hook) -> Any:
    """The function that a hook is for; None where there is none."""
    path, _, name = hook.target.rpartition(".")
    try:
        found = inspect.getattr_static(pkgutil.resolve_name(path), name)
    except (ImportError, AttributeError):
        return None
    return getattr(found, "__func__", found)


def _importers(functions: set[Any]) -> dict[Any, list[tuple[ModuleType, str]]]:
    """Function -> every module that has it, and its name there."""
    known = {id(function): function for function in functions}
    found: dict[Any, list[tuple[ModuleType, str]]] = {function: [] for function in functions}
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            for name, value in list(vars(module).items()):
                if id(value) in known:
                    found[known[id(value)]].append((module, name))
    return found


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
