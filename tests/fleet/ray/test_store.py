"""Files that were sent to a machine."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from psserve.fleet.ray import shipping, store
from psserve.fleet.ray.shipping import Damaged, ship
from psserve.fleet.ray.store import ABANDONED_S, Entry, Store, digest_of, listed


class Machine:
    """A machine's store, and what it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, Store(root)
        self.asked: list[str] = []
        self.before_keep: Callable[[], None] = lambda: None

    async def call(self, method: str, *arguments: Any) -> Any:
        self.asked.append(method)
        if method == "keep":
            self.before_keep()
        if method == "folder":
            arguments = ([Entry.model_validate(entry) for entry in arguments[0]],)
        return getattr(self.store, method)(*arguments)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Makes a checkpoint of these files."""

    def make(name: str, **files: bytes) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return folder

    return make


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "PIECE_BYTES", 1000)


async def test_what_arrives_is_what_was_sent(machine: Machine, make: Callable[..., Path]) -> None:
    folder = make("a", weights=os.urandom(2500), exact=os.urandom(2000), empty=b"", config=b"{}")
    there = await ship(folder, machine.call)
    assert {file.name: file.read_bytes() for file in there.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


async def test_nothing_is_sent_twice(machine: Machine, make: Callable[..., Path]) -> None:
    shared = os.urandom(5000)
    first = await ship(make("a", weights=shared, config=b"1"), machine.call)
    machine.asked.clear()
    second = await ship(make("b", other=shared, config=b"2"), machine.call)
    assert machine.asked == ["missing", "receive", "keep", "keep", "folder"]
    assert (second / "other").samefile(first / "weights")
    machine.asked.clear()
    assert await ship(make("c", weights=shared, config=b"1"), machine.call) == first
    assert machine.asked == ["missing", "folder"]


async def test_what_is_damaged_on_its_way_is_not_kept(machine: Machine, make: Callable[..., Path]) -> None:
    folder = make("a", weights=os.urandom(2500))

    def damage() -> None:
        (arriving,) = (machine.root / "arriving").iterdir()
        content = bytearray(arriving.read_bytes())
        content[1234] ^= 1
        arriving.write_bytes(content)

    machine.before_keep = damage
    with pytest.raises(Damaged, match="weights changed, or was damaged, on its way"):
        await ship(folder, machine.call)
    machine.before_keep = lambda: None
    assert (await ship(folder, machine.call) / "weights").read_bytes() == (folder / "weights").read_bytes()


async def test_a_large_file_is_looked_through_in_parts(
    machine: Machine, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOOK_BYTES", 1000)
    folder = make("a", weights=os.urandom(2500))
    there = await ship(folder, machine.call)
    assert machine.asked.count("keep") == 4
    assert (there / "weights").read_bytes() == (folder / "weights").read_bytes()


def test_a_file_that_is_sent_anew_is_looked_through_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOOK_BYTES", 1000)
    content = os.urandom(1500)
    digest = blake3(content).hexdigest()
    its = Store(tmp_path)
    its.receive(digest, 0, content)
    assert its.keep(digest) is None
    its.receive(digest, 0, content)
    assert [its.keep(digest) for _ in range(3)] == [None, None, True]


@pytest.mark.parametrize(("age_s", "stays"), [(ABANDONED_S / 2, True), (ABANDONED_S * 2, False)])
async def test_the_next_shipment_removes_what_was_left_half_sent(
    machine: Machine, make: Callable[..., Path], age_s: float, stays: bool
) -> None:
    Store(machine.root).receive("digest", 0, b"half")
    (left,) = (machine.root / "arriving").iterdir()
    os.utime(left, (time.time() - age_s,) * 2)
    await ship(make("a", weights=b"1"), machine.call)
    assert left.exists() == stays


async def test_a_folder_that_is_made_anew_is_read_anew(machine: Machine, make: Callable[..., Path]) -> None:
    folder = make("a", weights=os.urandom(2500))
    before = await ship(folder, machine.call)
    shutil.rmtree(folder)
    make("a", weights=os.urandom(2500))
    there = await ship(folder, machine.call)
    assert there != before
    assert (there / "weights").read_bytes() == (folder / "weights").read_bytes()


def test_a_folder_is_known_by_names_and_contents(make: Callable[..., Path], tmp_path: Path) -> None:
    its = Store(tmp_path / "store")
    found = set()
    for name, files in {"a": {"x": b"1", "y": b"2"}, "b": {"x": b"2", "y": b"1"}, "c": {"x": b"1", "z": b"2"}}.items():
        folder = make(name, **files)
        for file in folder.iterdir():
            its.receive(digest_of(file), 0, file.read_bytes())
            while (kept := its.keep(digest_of(file))) is None:
                pass
            assert kept
        found.add(its.folder(listed(folder)))
    assert len(found) == 3
