"""Only tested releases of SGLang are served with."""

from __future__ import annotations

import pytest

from psserve.engine import versions
from psserve.errors import UnsupportedSglang


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_supported_versions_pass(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed_sglang", lambda: version)
    assert versions.require_supported_sglang() == version


def test_another_version_is_refused_naming_it_and_the_supported_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed_sglang", lambda: "0.6.0")
    with pytest.raises(UnsupportedSglang, match=r"0\.6\.0.*0\.5\.17 and 0\.5\.18"):
        versions.require_supported_sglang()


def test_an_explicit_flag_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed_sglang", lambda: "0.6.0")
    assert versions.require_supported_sglang(allow_untested=True) == "0.6.0"


def test_a_missing_sglang_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed_sglang", lambda: None)
    with pytest.raises(UnsupportedSglang, match="make setup"):
        versions.require_supported_sglang(allow_untested=True)
