"""Connections before TLS is agreed on. They count, and end soon: a peer that never says a word holds a descriptor too.

asyncio's own server tells nobody of a connection until its handshake is over.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import partial
from typing import Protocol, cast

HANDSHAKE_S = 10.0
"""Until TLS must be agreed on."""


class Door(Protocol):
    """A server as new connections see it."""

    def enter(self) -> int:
        """A connection was accepted: it counts until it leaves. Which one it is of those that are here now."""

    def turns_away(self, number: int) -> bool:
        """Whether the connection that entered as this one is not even told that there are too many."""

    def leave(self) -> None:
        """A connection is gone."""

    def handler(self, number: int) -> asyncio.Protocol:
        """Who speaks with the connection that entered as this one, and leaves for it."""


class Handshakes:
    """Agrees on TLS with whoever connects."""

    def __init__(self, door: Door, context: ssl.SSLContext) -> None:
        self._door, self._context = door, context
        self._under_way: set[asyncio.Task[None]] = set()

    def newcomer(self) -> asyncio.Protocol:
        """For a connection that was just accepted."""
        return _Newcomer(self)

    def begin(self, transport: asyncio.Transport) -> None:
        """Take the connection of `transport`, which has read nothing of it, and is closed."""
        number = self._door.enter()
        if self._door.turns_away(number):
            self._door.leave()
            transport.abort()
            return
        try:
            connection = transport.get_extra_info("socket").dup()
        except OSError:  # no descriptor left
            self._door.leave()
            return
        finally:
            transport.abort()
        task = asyncio.get_running_loop().create_task(self._agree(connection, number))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _agree(self, connection: socket.socket, number: int) -> None:
        handler = partial(self._door.handler, number)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                handler, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
            )
        except OSError:  # no TLS, none that we know, too slow, or gone
            self._door.leave()


class _Newcomer(asyncio.Protocol):
    """It reads nothing: the first byte is TLS's already."""

    def __init__(self, handshakes: Handshakes) -> None:
        self._handshakes = handshakes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handshakes.begin(cast(asyncio.Transport, transport))  # uvloop's is one in all but name
