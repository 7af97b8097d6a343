"""What a base, a module or an alias may be called."""

from __future__ import annotations

import re
from collections.abc import Iterable

from psserve.errors import ModuleExists, UsageError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
RESERVED = frozenset({"base", "all", "auto", "router", "prefill"})
"""Words that the command line, the router or the fleet give a meaning of their own."""


def check_name(name: str, what: str = "module name") -> str:
    """Return `name` if it may be used; UsageError otherwise."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{what} {name[:80]!r}: use 1 to 64 characters of a-z 0-9 . _ - and start with a letter or a digit"
        )
    if name in RESERVED:
        raise UsageError(f"{what} {name!r} is reserved ({', '.join(sorted(RESERVED))}): choose another")
    return name


def check_free(wanted: Iterable[str], base: str, taken: dict[str, str]) -> None:
    """Raise ModuleExists if one of `wanted` (a name and its aliases) is the base's, a module's (`taken`), or repeated.

    `taken` maps each name and alias in use to the module that has it.
    """
    seen: set[str] = set()
    for name in wanted:
        if name == base:
            raise ModuleExists(f"{name!r} is the name of the zoo's base: choose another")
        if name in taken:
            raise ModuleExists(f"{name!r} is taken by module {taken[name]!r}: choose another")
        if name in seen:
            raise ModuleExists(f"{name!r} is given twice: name and aliases must differ")
        seen.add(name)


def default_base_name(source: str) -> str:
    """A base's name made of the last part of its path or Hub id, e.g. "Qwen/Qwen3-0.6B" -> "qwen3-0.6b"."""
    last = source.rstrip("/").rpartition("/")[2].lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", last).lstrip("._-")[:64]
    return f"{name}-model" if name in RESERVED else name
