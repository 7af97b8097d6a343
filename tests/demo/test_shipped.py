"""The demo zoo that came with psserve is written where it is asked for, or the reason is told."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from psserve.demo import shipped
from psserve.demo.shipped import MODULES, write_demo_zoo
from psserve.errors import ZooError
from psserve.zoo import Zoo


def test_an_empty_folder_stays_that_folder(tmp_path: Path) -> None:
    """In a container it is a volume: it cannot be replaced, and nothing can be written beside it."""
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    before = zoo.stat().st_ino
    assert write_demo_zoo(zoo)
    assert zoo.stat().st_ino == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["zoo"]
    assert sorted(each.name for each in zoo.iterdir()) == [".lock", "base", "modules", "zoo.toml"]
    assert sorted(module.name for module in Zoo.open(zoo).modules()) == sorted(MODULES)


def test_what_an_interrupted_copy_has_left_is_no_hindrance(tmp_path: Path) -> None:
    for left in (".building/modules/half", "base/whole"):
        (tmp_path / left).mkdir(parents=True)
    assert write_demo_zoo(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == [".lock", "base", "modules", "zoo.toml"]
    assert not (tmp_path / "base" / "whole").exists()
    assert not write_demo_zoo(tmp_path)


def test_two_at_once_make_one_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_copy, copy = threading.Barrier(2, timeout=1), shipped._copy

    def copy_beside_the_other(source: Path, destination: Path) -> None:
        with suppress(threading.BrokenBarrierError):
            both_copy.wait()
        copy(source, destination)

    monkeypatch.setattr(shipped, "_copy", copy_beside_the_other)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(write_demo_zoo, [tmp_path / "zoo"] * 2)) == [False, True]
    assert sorted(each.name for each in (tmp_path / "zoo").iterdir()) == [".lock", "base", "modules", "zoo.toml"]


def test_a_folder_of_someone_elses_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(ZooError, match="not empty, and no zoo"):
        write_demo_zoo(tmp_path)
    assert (tmp_path / "base").is_dir()


def test_a_place_that_cannot_be_written_is_named_with_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    zoo = tmp_path / "file" / "zoo"
    with pytest.raises(ZooError) as raised:
        write_demo_zoo(zoo)
    assert str(raised.value) == (
        f"{zoo}: user {os.getuid()} cannot write there (Not a directory): give the demo a place with --zoo DIR"
    )
