"""The versions that matter when something is reported, from package metadata: nothing is imported."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import psserve

PACKAGES = ("sglang", "torch", "transformers", "nixl", "mooncake-transfer-engine")


def installed(package: str) -> str | None:
    """A package's version, or None when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """psserve, Python, and of `PACKAGES` those that are installed."""
    found = {package: installed(package) for package in PACKAGES}
    known = {package: text for package, text in found.items() if text is not None}
    return {"psserve": psserve.__version__, "python": platform.python_version(), **known}
