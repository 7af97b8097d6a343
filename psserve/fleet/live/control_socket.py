"""The supervisor's end of the control socket: each caller is answered in a task of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import ValidationError

from psserve.errors import FleetError
from psserve.fleet.run.protocol import LONGEST_LINE, ChangeReply, ChangeRequest, at_path, unix_socket

Tell = Callable[[str], None]
"""Takes what there is to say of a change in progress."""
Make = Callable[[ChangeRequest, Tell], Awaitable[ChangeReply]]
"""Has a change made, and says how it ended."""

_WHOLE_REQUEST_S = 5.0
_MOST_UNREAD = 1 << 16
"""Bytes that wait for a caller who does not read."""


class ControlSocket:
    """Listens in the fleet's private folder, for this user alone."""

    def __init__(self, path: Path, make: Make) -> None:
        self._path, self._make = path, make
        self._server: asyncio.Server | None = None
        self._callers: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen from now on. Raises OSError: the folder's file system has no sockets, or is full."""
        listener = unix_socket()
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            at_path(self._path, listener.bind)
        finally:
            os.umask(old)
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=LONGEST_LINE - 1)

    async def close(self) -> None:
        """Listen no more; break off what is in progress, and tell whoever waits."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for caller in self._callers:
            caller.cancel()
        if self._callers:
            await asyncio.wait(self._callers)

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        caller = asyncio.create_task(self._answer(reader, writer))
        self._callers.add(caller)
        caller.add_done_callback(self._callers.discard)

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One caller's whole conversation. A caller that left is told nothing; what it asked for goes on."""
        try:
            if not _is_own_user(writer.get_extra_info("socket")):
                raise FleetError("this fleet is another user's")
            request = await _read(reader)
            reply = await self._make(request, lambda text: _send(writer, ChangeReply(progress=text)))
        except FleetError as error:
            reply = ChangeReply(error=str(error))
        except asyncio.CancelledError:  # the task ends here all the same
            reply = ChangeReply(error="the fleet is being stopped")
        _send(writer, reply)
        writer.close()


async def _read(reader: StreamReader) -> ChangeRequest:
    """The request, once it is whole. Raises FleetError: it never is, or is none."""
    try:
        async with asyncio.timeout(_WHOLE_REQUEST_S):
            line = await reader.readuntil()
    except (TimeoutError, asyncio.LimitOverrunError):
        raise FleetError(f"no whole request (a line of at most {LONGEST_LINE} bytes)") from None
    except (asyncio.IncompleteReadError, OSError):
        raise FleetError("the request broke off") from None
    try:
        return ChangeRequest.model_validate_json(line)
    except ValidationError as error:
        raise FleetError(f"not a request: {error.errors(include_url=False)[0]['msg']}") from None


def _send(writer: StreamWriter, reply: ChangeReply) -> None:
    """Send a line, without waiting. Who left, or does not read, is forgotten."""
    if writer.is_closing():
        return
    writer.write(reply.line())
    if writer.transport.get_write_buffer_size() > _MOST_UNREAD:
        writer.transport.abort()


def _is_own_user(connection: socket.socket) -> bool:
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(uid == os.getuid())
