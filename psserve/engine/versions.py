"""Which releases of SGLang psserve serves with.

A release is supported when the end-to-end tests of exactness pass on it. Its version is all that is looked at here,
before SGLang is imported; whether its functions are those that were tested is `handover/releases.py`'s to find out.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from psserve.errors import UnsupportedSglang

SUPPORTED = ("0.5.17", "0.5.18", "0.5.21", "0.5.22", "0.5.23")
TESTED = f"{', '.join(SUPPORTED[:-1])} or {SUPPORTED[-1]}"
ONE_POOL = ("0.5.18", "0.5.22", "0.5.23")
"""Releases whose decode servers can read a prefill server's pool: the tests of that pass on these."""
ONE_POOL_UNASKED_SINCE = "0.5.22"
"""The first release in which that pool takes nothing from anybody. In 0.5.18 a request without a limit of its own waits
while others with short prompts run in a small pool."""
HITS_SINCE = "0.5.22"
"""The first release in which prompts that a prefill server hands over count as hits of what they found in its cache."""
_KNOWN_BAD = {
    release: "it leaks the slots of requests that a decode server takes back after it ran out of them"
    for release in ("0.5.19", "0.5.20")
}
"""Releases that were looked at, and why they are left out."""
ALLOW_FLAG = "psserve launch --allow-untested-sglang"


def installed_sglang() -> str | None:
    """The installed SGLang's version, or None when there is none."""
    try:
        return version("sglang")
    except PackageNotFoundError:
        return None


def number(release: str) -> tuple[int, ...]:
    """The first three numbers of a release, which compare as releases do: those of `0.5.18.post1` are (0, 5, 18)."""
    return tuple(int(part) for part in re.findall(r"\d+", release)[:3])


def require_one_pool(release: str) -> None:
    """Raise UnsupportedSglang for a release whose transfers psserve's shared pool was not made to replace."""
    if release not in ONE_POOL:
        raise UnsupportedSglang(
            f"one KV pool for all servers (--transfer shared) does not work with sglang {release} yet: install sglang "
            f"{' or '.join(ONE_POOL)}, or launch with --transfer nixl"
        )


def runs_one_pool_unasked(release: str) -> bool:
    """Whether decode servers may read a prefill server's pool though nobody asked for it."""
    return release in ONE_POOL and number(release) >= number(ONE_POOL_UNASKED_SINCE)


def require_hits(release: str, policy: str) -> None:
    """Raise UnsupportedSglang for a release in which that eviction policy would do what `lru` does."""
    if number(release) < number(HITS_SINCE):
        raise UnsupportedSglang(
            f"eviction_policy {policy}: sglang {release} does not count how often a prefill server's contexts come, so "
            f"it would be no other than lru: install sglang {HITS_SINCE} or later, or leave it out"
        )


def require_supported_sglang(*, allow_untested: bool = False) -> str:
    """Return SGLang's version; raise UnsupportedSglang when it is missing, or untested and not allowed."""
    found = installed_sglang()
    tested = f"{', '.join(SUPPORTED[:-1])} and {SUPPORTED[-1]}"
    if found is None:
        raise UnsupportedSglang(
            f"SGLang is not installed; psserve needs sglang {TESTED}: run `make setup`, or see docs/install.md"
        )
    if reason := _KNOWN_BAD.get(found):
        raise UnsupportedSglang(f"sglang {found} is not supported: {reason}. Install sglang {TESTED}")
    if found not in SUPPORTED and not allow_untested:
        raise UnsupportedSglang(
            f"sglang {found} is not supported: psserve was tested with {tested}. Install one of them, or try this one "
            f"with {ALLOW_FLAG} (a function or field that no longer fits still stops each server)"
        )
    return found
