"""The hosts that tests run on are apart, and reach each other over their cables alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.hosts import Lan, NotThere, Place, lan
from tests.waiting import PATIENCE_S, until

SERVE = """
import http.server, os, sys
os.chdir(sys.argv[2])
server = http.server.HTTPServer((sys.argv[1], 8000), http.server.SimpleHTTPRequestHandler)
print("listens", flush=True)
server.serve_forever()
"""
FETCH = "import sys, urllib.request as u; print(len(u.urlopen(sys.argv[1], timeout=float(sys.argv[2])).read()))"
SIZE = 1_000_000


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    with lan(tmp_path_factory.mktemp("lan"), ("b", "c")) as made:
        yield made


def output(place: Place, *words: str) -> str:
    command = place.command(*words)
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout.strip()


def fetched(place: Place, url: str, within_s: float = PATIENCE_S) -> int | None:
    """Bytes at a URL, as seen from there; None if it is not reached."""
    with contextlib.suppress(subprocess.CalledProcessError):
        return int(output(place, sys.executable, "-c", FETCH, url, str(within_s)))
    return None


@contextlib.contextmanager
def served(place: Place, address: str, folder: Path) -> Iterator[None]:
    """A file of `SIZE` bytes, at http://ADDRESS:8000/file."""
    (folder / "file").write_bytes(b"x" * SIZE)
    command = place.command(sys.executable, "-c", SERVE, address, str(folder))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listens\n"
        try:
            yield
        finally:
            for process in (*psutil.Process(server.pid).children(), server):  # nsenter waits for what it runs in there
                process.kill()


def test_hosts_reach_each_other_over_their_cables(net: Lan, tmp_path: Path) -> None:
    b, c = net.hosts["b"], net.hosts["c"]
    before = b.sent(), c.received()
    with served(b, b.address, tmp_path):
        assert b.listeners() == {(b.address, 8000)}
        assert c.listeners() == set()
        assert fetched(c, f"http://{b.address}:8000/file") == SIZE
        assert fetched(b, f"http://{b.address}:8000/file") == SIZE
    assert SIZE < c.received() - before[1] < 1.2 * SIZE
    assert SIZE < b.sent() - before[0] < 1.2 * SIZE


def test_a_cable_can_be_pulled_and_plugged(net: Lan, tmp_path: Path) -> None:
    b, c = net.hosts["b"], net.hosts["c"]
    with served(b, b.address, tmp_path):
        net.unplug("b")
        assert fetched(c, f"http://{b.address}:8000/file", within_s=0.5) is None
        assert fetched(net.switch, f"http://{b.address}:8000/file", within_s=0.5) is None
        net.plug("b")
        assert fetched(c, f"http://{b.address}:8000/file") == SIZE


def test_hosts_share_files_and_nothing_else(net: Lan, tmp_path: Path) -> None:
    kinds = ("net", "pid", "ipc", "mnt")
    apart = {output(host, "readlink", *(f"/proc/self/ns/{kind}" for kind in kinds)) for host in net.hosts.values()}
    here = "\n".join(os.readlink(f"/proc/self/ns/{kind}") for kind in kinds)
    assert len({*apart, here}) == 3
    (tmp_path / "file").write_text("shared")
    assert {output(host, "cat", str(tmp_path / "file")) for host in net.hosts.values()} == {"shared"}
    output(net.hosts["b"], "touch", "/dev/shm/of-b")
    assert output(net.hosts["c"], "ls", "/dev/shm") == ""
    assert not Path("/dev/shm/of-b").exists()
    assert "signal.SIGCHLD" in output(net.hosts["b"], "cat", "/proc/1/cmdline")


def test_orphans_on_a_host_leave_no_zombies(net: Lan) -> None:
    b = net.hosts["b"]
    output(b, "sh", "-c", "(sleep 0.1 &) && true")
    until(lambda: not psutil.Process(b.pid).children())


def test_all_ends_with_a_host_that_is_switched_off_and_it_comes_back_at_its_address(net: Lan, tmp_path: Path) -> None:
    b, c = net.hosts["b"], net.hosts["c"]
    lives = subprocess.Popen(b.command("sleep", "600"))
    until(lambda: len(b.processes()) == 1)
    net.switch_off("b")
    assert lives.wait(PATIENCE_S) != 0
    with pytest.raises(NotThere):
        b.command("true")
    net.switch_on("b")
    with served(b, b.address, tmp_path):
        assert fetched(c, f"http://{b.address}:8000/file") == SIZE


def test_the_switch_is_reached_from_outside_through_a_door(net: Lan, tmp_path: Path) -> None:
    with served(net.switch, "127.0.0.1", tmp_path), net.door(8000) as url:
        assert len(requests.get(f"{url}/file", timeout=PATIENCE_S).content) == SIZE
