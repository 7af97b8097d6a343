"""Which releases of SGLang psserve was tested with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from psserve.errors import UnsupportedSglang

SUPPORTED = ("0.5.17", "0.5.18")


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
            f"sglang {found} is not supported: psserve was tested with {tested}. Install one of them, or set "
            "PSSERVE_ALLOW_UNTESTED_SGLANG=1 to try (a hook that no longer fits still stops the server)"
        )
    return found
