"""The supervisor's end of the control socket. Nothing here ever waits: the supervisor looks in between its duties."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from psserve.fleet.run.protocol import LONGEST_LINE, ChangeReply, ChangeRequest, at_path, unix_socket

_WHOLE_REQUEST_S = 5.0
_MOST_CALLERS = 16
"""At a time, while their requests are not yet whole."""


class Caller:
    """One connection. A caller that left, or does not read, is forgotten; what it asked for goes on."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection

    def progress(self, text: str) -> None:
        self._send(ChangeReply(progress=text))

    def done(self, text: str) -> None:
        self._send(ChangeReply(done=text))
        self._connection.close()

    def failed(self, text: str) -> None:
        self._send(ChangeReply(error=text))
        self._connection.close()

    def received(self) -> bytes | None:
        """What came since the last call: b"" at the end, None if nothing did."""
        try:
            return self._connection.recv(LONGEST_LINE)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def is_own_user(self) -> bool:
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return bool(uid == os.getuid())

    def _send(self, reply: ChangeReply) -> None:
        line = reply.line()
        try:
            whole = self._connection.send(line) == len(line)
        except OSError:  # it left, it does not read, or it was closed before
            whole = False
        if not whole:
            self._connection.close()


@dataclass
class _Half:
    """A request that has not wholly arrived."""

    caller: Caller
    text: bytes = b""
    since: float = field(default_factory=time.monotonic)


class ControlSocket:
    """Listens in the fleet's private folder, for this user alone."""

    def __init__(self, path: Path) -> None:
        """Raises OSError: the folder's file system has no sockets, or is full."""
        self._path = path
        self._halves: list[_Half] = []
        self._socket = unix_socket()
        path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            at_path(path, self._socket.bind)
        finally:
            os.umask(old)
        self._socket.listen(_MOST_CALLERS)
        self._socket.setblocking(False)

    def requests(self) -> Iterator[tuple[ChangeRequest, Caller]]:
        """Requests that are whole by now."""
        self._accept()
        halves, self._halves = self._halves, []
        for half in halves:
            request = self._read(half)
            if request is not None:
                yield request, half.caller

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)
        for half in self._halves:
            half.caller.failed("the fleet is being stopped")

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while len(self._halves) < _MOST_CALLERS:
                caller = Caller(self._socket.accept()[0])
                if caller.is_own_user():
                    self._halves.append(_Half(caller))
                else:
                    caller.failed("this fleet is another user's")

    def _read(self, half: _Half) -> ChangeRequest | None:
        """Take in what came. What is not whole is kept for the next time, or refused."""
        received = half.caller.received()
        half.text += received or b""
        line, end, _ = half.text.partition(b"\n")
        if end:
            try:
                return ChangeRequest.model_validate_json(line)
            except ValidationError as error:
                half.caller.failed(f"not a request: {error.errors(include_url=False)[0]['msg']}")
        elif received == b"":
            half.caller.failed("the request broke off")
        elif len(half.text) >= LONGEST_LINE or time.monotonic() - half.since > _WHOLE_REQUEST_S:
            half.caller.failed(f"no whole request (a line of at most {LONGEST_LINE} bytes)")
        else:
            self._halves.append(half)
        return None
