"""The control socket, asked well and badly."""

from __future__ import annotations

import asyncio
import json
import stat
from asyncio import Future, Queue, StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.errors import FleetError
from psserve.fleet.live import control_socket
from psserve.fleet.live.control_socket import ControlSocket, Tell
from psserve.fleet.run.protocol import LONGEST_LINE, ChangeReply, ChangeRequest, short_name, unix_socket
from tests.fleet.conftest import WAIT_S


class Changer:
    """Takes requests, and answers each when it is told to."""

    def __init__(self) -> None:
        self.requests: Queue[tuple[ChangeRequest, Tell, Future[ChangeReply]]] = Queue()

    async def make(self, request: ChangeRequest, tell: Tell) -> ChangeReply:
        reply: Future[ChangeReply] = asyncio.get_running_loop().create_future()
        self.requests.put_nowait((request, tell, reply))
        return await reply

    async def first(self) -> tuple[ChangeRequest, Tell, Future[ChangeReply]]:
        """The next whole request."""
        return await asyncio.wait_for(self.requests.get(), WAIT_S)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Longer than a socket's address may be."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    return folder / "control.sock"


@pytest.fixture
def changer() -> Changer:
    return Changer()


@pytest.fixture
async def listener(path: Path, changer: Changer) -> AsyncIterator[ControlSocket]:
    listener = ControlSocket(path, changer.make)
    await listener.open()
    yield listener
    await listener.close()


@asynccontextmanager
async def caller(path: Path) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    connection = unix_socket()
    with short_name(path) as name:
        connection.connect(name)
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    yield reader, writer
    writer.close()


async def refusal(reader: StreamReader, changer: Changer) -> str:
    """The error that ends a connection on which nothing whole came."""
    reply = json.loads(await asyncio.wait_for(reader.read(), WAIT_S))
    assert changer.requests.empty()
    return str(reply["error"])


async def until_all_are_answered(listener: ControlSocket) -> None:
    """Also raises what went wrong in answering."""
    await asyncio.wait_for(asyncio.gather(*listener._callers), WAIT_S)


async def test_request_in_pieces_and_its_answers(path: Path, listener: ControlSocket, changer: Changer) -> None:
    async with caller(path) as (reader, writer):
        for piece in (b'{"command": "ad', b'd", "module": "math"}', b"\n"):
            await asyncio.sleep(0.01)
            assert changer.requests.empty()
            writer.write(piece)
        request, tell, reply = await changer.first()
        assert request == ChangeRequest(command="add", module="math")
        tell("one")
        reply.set_result(ChangeReply(done="two"))
        assert await reader.read() == b'{"progress":"one"}\n{"done":"two"}\n'


async def test_socket_is_the_users_alone(path: Path, listener: ControlSocket) -> None:
    assert stat.S_IMODE((await asyncio.to_thread(path.stat)).st_mode) == 0o600
    await listener.close()
    assert not await asyncio.to_thread(path.exists)


async def test_other_users_are_refused(
    path: Path, listener: ControlSocket, changer: Changer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket.os, "getuid", lambda: 12345)
    async with caller(path) as (reader, _):
        assert await refusal(reader, changer) == "this fleet is another user's"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"hello\n", "not a request: Invalid JSON"),
        (b"\n", "not a request: Invalid JSON"),
        (b'{"command": "explode"}\n', "not a request: Input should be 'add'"),
        (b'{"command": "add"}\n', "not a request: Value error, add, update, remove, try and withdraw need a module"),
        (b'{"command": "reload", "module": "math"}\n', "not a request: Value error"),
        (b'{"command": "reload", "now": true}\n', "not a request: Extra inputs"),
        (b"x" * LONGEST_LINE, "no whole request (a line of at most 4096 bytes)"),
    ],
)
async def test_what_is_no_request_is_refused(
    path: Path, listener: ControlSocket, changer: Changer, sent: bytes, said: str
) -> None:
    async with caller(path) as (reader, writer):
        writer.write(sent)
        assert (await refusal(reader, changer)).startswith(said)


async def test_half_a_request_is_refused_at_its_end(path: Path, listener: ControlSocket, changer: Changer) -> None:
    async with caller(path) as (reader, writer):
        writer.write(b'{"command"')
        writer.write_eof()
        assert await refusal(reader, changer) == "the request broke off"


async def test_half_a_request_is_not_waited_for_for_ever(
    path: Path, listener: ControlSocket, changer: Changer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "_WHOLE_REQUEST_S", 0.0)
    async with caller(path) as (reader, writer):
        writer.write(b'{"command"')
        assert (await refusal(reader, changer)).startswith("no whole request")


async def test_silent_callers_keep_nobody_out(path: Path, listener: ControlSocket, changer: Changer) -> None:
    silent = []
    for _ in range(16):
        connection = unix_socket()
        connection.setblocking(False)
        with short_name(path) as name:
            connection.connect(name)
        silent.append(connection)
    async with caller(path) as (_, writer):
        writer.write(b'{"command": "reload"}\n')
        assert (await changer.first())[0].title == "reload"
    for connection in silent:
        connection.close()


async def test_who_waits_is_told_that_the_fleet_stops(path: Path, listener: ControlSocket, changer: Changer) -> None:
    async with caller(path) as (reader, writer), caller(path) as (half, _):
        writer.write(b'{"command": "reload"}\n')
        _, _, reply = await changer.first()
        await listener.close()
        assert reply.cancelled()
        assert await reader.read() == await half.read() == b'{"error":"the fleet is being stopped"}\n'


async def test_caller_that_left_is_told_nothing(path: Path, listener: ControlSocket, changer: Changer) -> None:
    async with caller(path) as (_, writer):
        writer.write(b'{"command": "reload"}\n')
        _, tell, reply = await changer.first()
    await writer.wait_closed()
    for text in ("one", "two", "three"):
        tell(text)
        await asyncio.sleep(0)
    assert not reply.done()  # what it asked for goes on
    reply.set_result(ChangeReply(done="four"))
    await until_all_are_answered(listener)


async def test_caller_that_does_not_read_is_given_up(path: Path, listener: ControlSocket, changer: Changer) -> None:
    async with caller(path) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b'{"command": "reload"}\n')
        _, tell, reply = await changer.first()
        for _ in range(10_000):
            tell("x" * 1000)  # returns at once each time
        reply.set_result(ChangeReply(done="two"))
        await until_all_are_answered(listener)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_upset_the_listener(sent: bytes) -> None:
    async def read() -> ChangeRequest | None:
        reader = StreamReader(limit=LONGEST_LINE - 1)
        reader.feed_data(sent)
        reader.feed_eof()
        try:
            return await control_socket._read(reader)
        except FleetError:
            return None

    request = asyncio.run(read())
    assert request is None or request.command in ("add", "update", "remove", "reload")
