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
    with pytest.raises(UnsupportedSglang, match=r"0\.6\.0.*0\.5\.17, 0\.5\.18, 0\.5\.21, 0\.5\.22 and 0\.5\.23"):
        versions.require_supported_sglang()


@pytest.mark.parametrize("version", ["0.5.19", "0.5.20"])
@pytest.mark.parametrize("allowed", [True, False])
def test_releases_that_leak_are_refused_with_the_reason(
    version: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "installed_sglang", lambda: version)
    with pytest.raises(UnsupportedSglang, match=rf"sglang {version} is not supported: it leaks .*or 0\.5\.23"):
        versions.require_supported_sglang(allow_untested=allowed)


@pytest.mark.parametrize(
    ("text", "numbers"), [("0.5.9", (0, 5, 9)), ("0.5.18.post1", (0, 5, 18)), ("0.6.0rc1", (0, 6, 0)), ("", ())]
)
def test_releases_compare_by_their_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert versions.number(text) == numbers


def test_an_explicit_flag_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed_sglang", lambda: "0.6.0")
    assert versions.require_supported_sglang(allow_untested=True) == "0.6.0"


def test_a_missing_sglang_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed_sglang", lambda: None)
    with pytest.raises(UnsupportedSglang, match="make setup"):
        versions.require_supported_sglang(allow_untested=True)


@pytest.mark.parametrize("version", versions.ONE_POOL)
def test_one_pool_is_there_where_it_was_tested(version: str) -> None:
    versions.require_one_pool(version)


@pytest.mark.parametrize("version", ["0.5.17", "0.5.21", "0.6.0"])
def test_one_pool_is_refused_by_name_where_it_was_not(version: str) -> None:
    with pytest.raises(
        UnsupportedSglang, match=rf"shared.*with sglang {version} yet.*0\.5\.18 or 0\.5\.22 or 0\.5\.23, .*nixl"
    ):
        versions.require_one_pool(version)


def test_a_policy_that_counts_hits_is_there_where_they_are_counted() -> None:
    versions.require_hits("0.5.22", "slru")


@pytest.mark.parametrize("version", ["0.5.18", "0.5.21"])
def test_a_policy_that_counts_hits_is_refused_by_name_where_they_are_not(version: str) -> None:
    with pytest.raises(UnsupportedSglang, match=rf"eviction_policy slru: sglang {version} .*0\.5\.22 or later"):
        versions.require_hits(version, "slru")
