"""Hooks on SGLang for the length of a test."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.plugins.hook_registry import HookRegistry  # noqa: E402

from psserve.engine import hooks as hooking  # noqa: E402
from psserve.engine.handover.targets import is_in  # noqa: E402
from psserve.engine.hooks import Hook  # noqa: E402
from tests.engine.release import INSTALLED  # noqa: E402


@contextmanager
def hooked(hooks: Sequence[Hook]) -> Iterator[None]:
    """SGLang with those of these hooks that its release needs in this process, and without them afterwards."""
    hooks = [hook for hook in hooks if is_in(hook.target, INSTALLED)]
    stock = {hook.target: _at(hook.target) for hook in hooks}
    HookRegistry.reset()
    hooking.apply(hooks, "under test")
    try:
        yield
    finally:
        HookRegistry.reset()
        for target, original in stock.items():
            _put_back(target, original)


def _at(target: str) -> Any:
    owner, _, name = target.rpartition(".")
    return vars(pkgutil.resolve_name(owner))[name]


def _put_back(target: str, original: Any) -> None:
    owner, _, name = target.rpartition(".")
    wrapper = _at(target)
    setattr(pkgutil.resolve_name(owner), name, original)
    for module in list(sys.modules.values()):  # whoever imported the function by its name was given the wrapper
        for own, value in list(vars(module).items()) if isinstance(module, ModuleType) else ():
            if value is wrapper:
                setattr(module, own, original)
