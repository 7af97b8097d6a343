from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from psserve.errors import UsageError, ZooError
from psserve.zoo.disk import storage
from psserve.zoo.disk.storage import lock, real_path, write_atomically
from tests.waiting import PATIENCE_S

HOLD = """
import sys, pathlib
from psserve.zoo.disk.storage import lock
with lock(pathlib.Path(sys.argv[1])):
    print(flush=True)
    input()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_who_waits_too_long_is_told_who_holds_the_lock(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LOCK_WAIT_S", 0.1)
    with pytest.raises(ZooError, match=rf"\(process {holder.pid}\) is changing this zoo"), lock(tmp_path / "lock"):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    with lock(tmp_path / "lock"):
        assert f"(process {os.getpid()})" in (tmp_path / "lock").read_text()


def test_a_writer_waits_for_its_turn(tmp_path: Path) -> None:
    turns = []

    def write(number: int) -> None:
        with lock(tmp_path / "lock"):
            turns.append(number)
            time.sleep(0.1)
            turns.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert turns[::2] == turns[1::2]


def test_a_lock_in_a_directory_that_was_replaced_is_taken_anew(tmp_path: Path) -> None:
    """Or two processes would hold one lock each and change the same zoo."""
    zoo, successor = tmp_path / "zoo", tmp_path / "successor"
    for link, directory in ((zoo, tmp_path / "first"), (successor, tmp_path / "second")):
        directory.mkdir()
        link.symlink_to(directory)
    entered = threading.Event()

    def enter() -> None:
        with lock(zoo / "lock"):
            entered.set()

    with lock(zoo / "lock"):
        waiting = threading.Thread(target=enter)
        waiting.start()
        time.sleep(0.2)
        successor.replace(zoo)  # at once: whoever waits never finds nothing there
        assert entered.wait(PATIENCE_S)
    waiting.join()


def test_a_lock_that_cannot_be_made_is_an_error_that_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(ZooError, match="cannot be changed: lock: No such file or directory"),
        lock(tmp_path / "a" / "lock"),
    ):
        pass


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "file", "no bytes")  # type: ignore[arg-type]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_a_path_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for given in ("~no-such-user/x", loop, loop / "x"):
        with pytest.raises(UsageError, match=f"^{given}: leads nowhere"):
            real_path(given)


def test_a_path_is_taken_as_the_user_means_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert real_path("~/link/file") == tmp_path / "there" / "file"
