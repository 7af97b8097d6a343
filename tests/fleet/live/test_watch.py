"""When a watched zoo counts as changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.fleet.live.requests import ZooWatch


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("psserve.fleet.live.requests._EVERY_S", 0.0)
    write(tmp_path, "math", "1")
    return tmp_path


def write(zoo: Path, module: str, text: str) -> None:
    """As the zoo does: whole, by a rename."""
    folder = zoo / "modules" / module
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "new").write_text(text)
    (folder / "new").replace(folder / "module.toml")


def test_nothing_new(zoo: Path) -> None:
    seen = ZooWatch(zoo)
    assert not any(seen.changed() for _ in range(3))


@pytest.mark.parametrize("change", ["added", "replaced", "removed"])
def test_change_is_told_once_it_rests(zoo: Path, change: str) -> None:
    seen = ZooWatch(zoo)
    if change == "removed":
        (zoo / "modules" / "math" / "module.toml").unlink()
    else:
        write(zoo, "code" if change == "added" else "math", "2")
    assert [seen.changed() for _ in range(4)] == [False, True, False, False]


def test_changes_in_a_row_are_told_once(zoo: Path) -> None:
    seen = ZooWatch(zoo)
    for number in range(3):
        write(zoo, f"code{number}", "x")
        assert not seen.changed()
    assert [seen.changed() for _ in range(3)] == [True, False, False]


def test_what_is_undone_at_once_is_no_change(zoo: Path) -> None:
    seen = ZooWatch(zoo)
    manifest = zoo / "modules" / "math" / "module.toml"
    manifest.rename(zoo / "aside")
    assert not seen.changed()
    (zoo / "aside").rename(manifest)
    assert not any(seen.changed() for _ in range(3))


def test_looks_once_a_second(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psserve.fleet.live.requests._EVERY_S", 3600.0)
    seen = ZooWatch(zoo)
    seen.changed()
    write(zoo, "code", "1")
    assert not any(seen.changed() for _ in range(3))
