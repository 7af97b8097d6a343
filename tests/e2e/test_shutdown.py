"""However a fleet ends, no process of it is left, and the next one starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import requests

from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.fleet import PSSERVE, READY_WITHIN_S, one_start_at_a_time
from tests.e2e.forked_launch import Launch, launching
from tests.e2e.transfer import with_transfer
from tests.e2e.watching import family, listening
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def zoo(zoo_of: Callable[[Architecture], Zoo]) -> Path:
    return zoo_of("qwen3").path


@contextmanager
def launching_alpha(zoo: Path, *flags: str) -> Iterator[Launch]:
    """`psserve launch` of one module, as it starts."""
    with one_start_at_a_time(), launching(zoo, *with_transfer(("--modules", "alpha", *flags))) as launch:
        yield launch


def url_of(launch: Launch) -> str:
    """Where a starting fleet serves, once it does."""
    return launch.await_ready(READY_WITHIN_S).split()[3]


def is_draining(url: str) -> bool:
    """Whether new requests are refused."""
    try:
        return requests.get(f"{url}/readiness", timeout=30).status_code == 503
    except requests.ConnectionError:
        return True


def assert_gone(processes: list[psutil.Process]) -> None:
    assert not psutil.wait_procs(processes, timeout=PATIENCE_S)[1]


def test_killing_the_supervisor_ends_all_and_the_next_launch_works(zoo: Path) -> None:
    with launching_alpha(zoo) as launch:
        url_of(launch)
        processes = family(launch.pid)
        assert len(processes) > 6
        os.kill(launch.pid, signal.SIGKILL)
        assert_gone(processes)
    with launching_alpha(zoo, "--host", "0.0.0.0", "--api-key", "k") as launch:
        url = url_of(launch)
        assert requests.get(f"{url}/readiness", timeout=30).status_code == 200
        assert requests.get(f"{url}/v1/models", timeout=30).status_code == 401
        processes = family(launch.pid)
        reachable = {(host, title) for host, title in listening(processes) if host not in ("127.0.0.1", "::1")}
        assert [(host, "psserve.router" in title) for host, title in reachable] == [("0.0.0.0", True)], reachable
        os.kill(launch.pid, signal.SIGTERM)
        assert launch.end(PATIENCE_S) == 0
        assert_gone(processes)


def test_a_second_interrupt_does_not_wait_for_answers(zoo: Path) -> None:
    with launching_alpha(zoo, "--drain-secs", "600") as launch:
        body = {"model": "alpha", "prompt": [5, 6, 7], "max_tokens": 4000, "ignore_eos": True, "stream": True}
        url = url_of(launch)
        stream = requests.post(f"{url}/v1/completions", json=body, stream=True, timeout=PATIENCE_S)
        lines = stream.iter_lines()
        next(lines)
        processes = family(launch.pid)
        os.kill(launch.pid, signal.SIGINT)
        until(lambda: is_draining(url))
        next(lines)  # it goes on after the first
        os.kill(launch.pid, signal.SIGINT)
        assert launch.end(PATIENCE_S) == 0
        assert_gone(processes)
        rest: list[bytes] = []
        with suppress(requests.RequestException):
            rest.extend(lines)
        assert b"data: [DONE]" not in rest


def test_ending_a_fleet_that_is_still_starting(zoo: Path) -> None:
    """As a process of its own, which first has to import SGLang."""
    command = [PSSERVE, "launch", "--zoo", str(zoo), "--modules", "alpha", "--port", "0"]
    with one_start_at_a_time(), subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: len(family(process.pid)) > 2)
        processes = family(process.pid)
        process.send_signal(signal.SIGTERM)
        _, notes = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        assert notes.splitlines()[-1] == "psserve: error: stopped before the fleet was ready"
        assert_gone(processes)


def copy_with_alpha(zoo: Path, to: Path, change: Callable[[Path], None]) -> Path:
    """The zoo with the weights of `alpha` changed."""
    copy = shutil.copytree(zoo, to, ignore=shutil.ignore_patterns(".run"))
    (weights,) = (copy / "modules" / "alpha").glob("*.safetensors")
    change(weights)
    return copy


def failed_launch(zoo: Path) -> str:
    """The last line that a launch says, which must fail."""
    with launching_alpha(zoo) as launch:
        assert launch.end(PATIENCE_S) == 1
        assert launch.output.read_text() == ""
        last = launch.notes.read_text().splitlines()[-1]
    assert "Traceback" not in last
    return last


def test_a_truncated_checkpoint_is_refused_by_name(zoo: Path, tmp_path: Path) -> None:
    broken = copy_with_alpha(zoo, tmp_path / "zoo", lambda weights: os.truncate(weights, 1000))
    said = failed_launch(broken)
    assert said.startswith(f"psserve: error: {broken / 'modules' / 'alpha'}")
    assert "1000 bytes" in said


def test_a_checkpoint_that_cannot_be_loaded_fails_the_launch_naming_server_and_log(zoo: Path, tmp_path: Path) -> None:
    def garble(weights: Path) -> None:
        with weights.open("r+b") as file:
            file.write(b"no safetensors header")

    broken = copy_with_alpha(zoo, tmp_path / "zoo", garble)
    said = failed_launch(broken)
    assert said.startswith("psserve: error: decode-alpha-0 ")
    assert str(broken / ".run" / "logs" / "decode-alpha-0.log") in said
