"""Lines between a decode server and a prefill server of one machine: Unix sockets, served by one thread.

A line begins with the prefill server's Pool and its files, and carries messages both ways after that. Its end is how
either side learns that the other is gone. Sockets have abstract names, which end with their process, and both sides
make sure that the other belongs to the same user.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

from psserve.engine.onepool.layout import Pool
from psserve.engine.onepool.messages import Message, Unpacker, packed
from psserve.errors import EngineError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_HELLO_BYTES = 4096
_HELLO_WITHIN_S = 10.0
_ACCEPT_AGAIN_S = 0.1
_PIECE = 1 << 16
_FILES_AT_ONCE = 250
"""The kernel takes 253 in a message."""


class Line:
    """One connection. To an ended line messages go nowhere.

    Messages are sent by the thread that has them: to wait for the lines' thread would take longer than to hand over.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, writer: asyncio.StreamWriter) -> None:
        self.ended = False
        self._loop = loop
        self._writer = writer
        self._socket: socket.socket = writer.get_extra_info("socket").dup()
        self._waiting = 0
        """Messages that the other side was too slow for. While there are any, others wait behind them."""
        self._turn = threading.Lock()
        writer.transport.set_write_buffer_limits(0)

    def send(self, message: Message) -> None:
        """Send without waiting. May be called from any thread."""
        data = packed(message)
        with self._turn:
            if self.ended or not (rest := data if self._waiting else self._unsent(data)):
                return
            self._waiting += 1
            asyncio.run_coroutine_threadsafe(self._send_later(rest), self._loop)

    def hang_up(self) -> None:
        """Have it end. May be called from any thread."""
        self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """Close it, in the lines' thread."""
        with self._turn:
            self.ended = True
            self._socket.close()
            self._writer.close()

    def _unsent(self, data: bytes) -> bytes:
        """What of it the other side has no room for."""
        try:
            return data[self._socket.send(data) :]
        except BlockingIOError:
            return data
        except OSError:  # it ended, of which the lines' thread is about to hear
            return b""

    async def _send_later(self, data: bytes) -> None:
        with suppress(OSError):  # as above
            self._writer.write(data)
            await self._writer.drain()
        with self._turn:
            self._waiting -= 1


class Lines:
    """All lines of one process. What is heard, and which line ended, is told in the lines' own thread."""

    def __init__(self, heard: Callable[[Line, Message], None], ended: Callable[[Line], None]) -> None:
        self._heard = heard
        self._told_end = ended
        self._loop = asyncio.new_event_loop()
        self._reading: set[asyncio.Task[None]] = set()
        threading.Thread(target=self._loop.run_forever, name="psserve-one-pool", daemon=True).start()

    def listen(self, port: int, pool: Pool, files: Sequence[int]) -> None:
        """Let readers come to the socket named after `port`, and give each the pool's files."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(_name_of(port))
        listening.listen(128)
        listening.setblocking(False)
        hello = json.dumps({"pool": asdict(pool), "files": len(files)}).encode()
        self._run(self._start_accepting(listening, hello, files))

    def call(self, port: int) -> tuple[Line, Pool, list[int]]:
        """A line to the prefill server whose socket is named after `port`, its pool, and its files: the caller's to
        close. Raises EngineError if there is none."""
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.settimeout(_HELLO_WITHIN_S)
        try:
            found.connect(_name_of(port))
            _require_own(found)
            pool, files = _hear_hello(found)
        except (OSError, ValueError, EngineError) as error:
            found.close()
            raise EngineError(f"the prefill server does not lend its KV: {error}") from error
        found.setblocking(False)
        return self._run(self._open(found)), pool, files

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start_accepting(self, listening: socket.socket, hello: bytes, files: Sequence[int]) -> None:
        self._keep(self._accept(listening, hello, files))

    async def _accept(self, listening: socket.socket, hello: bytes, files: Sequence[int]) -> None:
        while True:
            try:
                reader, _ = await self._loop.sock_accept(listening)
            except OSError as error:  # no descriptor is free, say: a later reader may find one
                logger.warning("psserve: no reader of KV can be let in just now: %s", error)
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            try:
                _require_own(reader)
                _say_hello(reader, hello, files)
            except (OSError, EngineError) as error:  # it is gone already, or another user's
                logger.warning("psserve: a reader of KV was turned away: %s", error)
                reader.close()
                continue
            await self._open(reader)

    async def _open(self, connected: socket.socket) -> Line:
        stream, writer = await asyncio.open_unix_connection(sock=connected)
        line = Line(self._loop, writer)
        self._keep(self._listen_to(line, stream))
        return line

    async def _listen_to(self, line: Line, stream: asyncio.StreamReader) -> None:
        unpacker = Unpacker()
        try:
            while piece := await stream.read(_PIECE):
                for message in unpacker.feed(piece):
                    self._heard(line, message)
        except OSError:  # it ended with something unread
            pass
        finally:
            line.end()
            self._told_end(line)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)


def _say_hello(reader: socket.socket, hello: bytes, files: Sequence[int]) -> None:
    for first in range(0, len(files), _FILES_AT_ONCE):
        socket.send_fds(reader, [hello if first == 0 else b"+"], list(files[first : first + _FILES_AT_ONCE]))


def _hear_hello(server: socket.socket) -> tuple[Pool, list[int]]:
    """The pool and its files. Raises OSError or ValueError, with no file left open, where they do not come."""
    hello, files, _, _ = socket.recv_fds(server, _HELLO_BYTES, _FILES_AT_ONCE)
    try:
        said = json.loads(hello)
        while (missing := said["files"] - len(files)) > 0:
            _, more, _, _ = socket.recv_fds(server, 1, _FILES_AT_ONCE)
            if not more:
                raise OSError(f"{missing} of {said['files']} files did not come: is the limit of open files too low?")
            files += more
        return Pool(**said["pool"]), files
    except (OSError, ValueError):
        for file in files:
            os.close(file)
        raise


def _name_of(port: int) -> bytes:
    """The abstract socket of the scheduler that listens on a TCP port of SGLang's: unique while it lives."""
    return f"\0psserve-kv-{os.getuid()}-{port}".encode()


def _require_own(peer: socket.socket) -> None:
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    if user != os.getuid():
        raise EngineError(f"the other side belongs to user {user}")
