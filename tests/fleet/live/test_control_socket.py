"""The control socket, asked well and badly."""

from __future__ import annotations

import json
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.fleet.live import control_socket
from psserve.fleet.live.control_socket import Caller, ControlSocket
from psserve.fleet.run.protocol import LONGEST_LINE, ChangeRequest, short_name, unix_socket
from tests.fleet.conftest import WAIT_S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Longer than a socket's address may be."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    return folder / "control.sock"


@pytest.fixture
def listener(path: Path) -> Iterator[ControlSocket]:
    listener = ControlSocket(path)
    yield listener
    listener.close()


@contextmanager
def caller(path: Path) -> Iterator[socket.socket]:
    with unix_socket() as connection, short_name(path) as name:
        connection.settimeout(WAIT_S)
        connection.connect(name)
        yield connection


def first(listener: ControlSocket) -> tuple[ChangeRequest, Caller]:
    """The next whole request."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for request in listener.requests():
            return request
    raise AssertionError("no request came")


def refusal(connection: socket.socket, listener: ControlSocket) -> str:
    """The error that ends a connection on which nothing whole came."""
    connection.settimeout(0.01)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        assert not list(listener.requests())
        try:
            return str(json.loads(connection.recv(4096))["error"])
        except TimeoutError:
            continue
    raise AssertionError("no refusal came")


def test_request_in_pieces_and_its_answers(path: Path, listener: ControlSocket) -> None:
    with caller(path) as connection:
        for piece in (b'{"command": "ad', b'd", "module": "math"}', b"\n"):
            assert not list(listener.requests())
            connection.sendall(piece)
        request, asker = first(listener)
        assert request == ChangeRequest(command="add", module="math")
        asker.progress("one")
        asker.done("two")
        assert connection.makefile("rb").read() == b'{"progress":"one"}\n{"done":"two"}\n'


def test_socket_is_the_users_alone(path: Path, listener: ControlSocket) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.close()
    assert not path.exists()


def test_other_users_are_refused(path: Path, listener: ControlSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_socket.os, "getuid", lambda: 12345)
    with caller(path) as connection:
        assert refusal(connection, listener) == "this fleet is another user's"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"hello\n", "not a request: Invalid JSON"),
        (b"\n", "not a request: Invalid JSON"),
        (b'{"command": "explode"}\n', "not a request: Input should be 'add'"),
        (b'{"command": "add"}\n', "not a request: Value error, add, update and remove need a module"),
        (b'{"command": "reload", "module": "math"}\n', "not a request: Value error"),
        (b'{"command": "reload", "now": true}\n', "not a request: Extra inputs"),
        (b"x" * LONGEST_LINE, "no whole request (a line of at most 4096 bytes)"),
    ],
)
def test_what_is_no_request_is_refused(path: Path, listener: ControlSocket, sent: bytes, said: str) -> None:
    with caller(path) as connection:
        connection.sendall(sent)
        assert refusal(connection, listener).startswith(said)


def test_half_a_request_is_refused_at_its_end(path: Path, listener: ControlSocket) -> None:
    with caller(path) as connection:
        connection.sendall(b'{"command"')
        connection.shutdown(socket.SHUT_WR)
        assert refusal(connection, listener) == "the request broke off"


def test_half_a_request_is_not_waited_for_for_ever(
    path: Path, listener: ControlSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "_WHOLE_REQUEST_S", 0.0)
    with caller(path) as connection:
        connection.sendall(b'{"command"')
        assert refusal(connection, listener).startswith("no whole request")


def test_silent_callers_keep_nobody_out_for_long(
    path: Path, listener: ControlSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = []
    for _ in range(16):
        connection = unix_socket()
        connection.setblocking(False)
        with short_name(path) as name:
            connection.connect(name)
        silent.append(connection)
    assert not list(listener.requests())
    monkeypatch.setattr(control_socket, "_WHOLE_REQUEST_S", 0.0)
    assert not list(listener.requests())
    with caller(path) as connection:
        connection.sendall(b'{"command": "reload"}\n')
        assert first(listener)[0].title == "reload"
    for connection in silent:
        connection.close()


def test_caller_that_left_is_told_nothing(path: Path, listener: ControlSocket) -> None:
    with caller(path) as connection:
        connection.sendall(b'{"command": "reload"}\n')
        _, asker = first(listener)
    asker.progress("one")
    asker.done("two")
    asker.failed("three")


def test_caller_that_does_not_read_is_given_up(path: Path, listener: ControlSocket) -> None:
    with caller(path) as connection:
        connection.sendall(b'{"command": "reload"}\n')
        _, asker = first(listener)
        for _ in range(10_000):
            asker.progress("x" * 1000)  # returns at once each time


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_upset_the_listener(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    half = control_socket._Half(Caller(theirs))
    listener = object.__new__(ControlSocket)
    listener._halves = []
    with ours:
        ours.sendall(sent)
        ours.shutdown(socket.SHUT_WR)
        request = listener._read(half)
    assert request is None or request.command in ("add", "update", "remove", "reload")
    theirs.close()
