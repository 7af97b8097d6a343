"""Which releases of SGLang psserve serves with.

A release is supported when the end-to-end tests of exactness pass on it. Its version is all that is looked at here,
before SGLang is imported; whether its functions are those that were tested is `handover/releases.py`'s to find out.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from psserve.errors import UnsupportedSglang

SUPPORTED = ("0.5.17", "0.5.18")
TESTED = " or ".join(SUPPORTED)
ALLOW_FLAG = "psserve launch --allow-untested-sglang"


def installed_sglang() -> str | None:
    """The installed SGLang's version, or None when there is none."""
    try:
        return version("sglang")
    except PackageNotFoundError:
        return None


def require_supported_sglang(*, allow_untested: bool = False) -> str:
    """Return SGLang's version; raise UnsupportedSglang when it is missing, or untested and not allowed."""
    found = installed_sglang()
    tested = " and ".join(SUPPORTED)
    if found is None:
        raise UnsupportedSglang(f"SGLang is not installed; psserve needs sglang {tested}: run `make setup`")
    if found not in SUPPORTED and not allow_untested:
        raise UnsupportedSglang(
            f"sglang {found} is not supported: psserve was tested with {tested}. Install one of them, or try this one "
            f"with {ALLOW_FLAG} (a function or field that no longer fits still stops each server)"
        )
    return found
