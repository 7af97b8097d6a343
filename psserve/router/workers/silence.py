"""When a worker's machine counts as cut off: its kernel has given no sign for `SILENT_S`, however busy the worker is.

| a connection that | is asked by |
|---|---|
| waits for an answer | keepalive probes, each second |
| has a small body under way | its own segments, sent again and again (TCP_USER_TIMEOUT) |
| has a large body under way | another connection to the worker, with nothing under way (`Pulses`) |

The last is for workers that live and do not read for long: TCP_USER_TIMEOUT would break their connections too, once
their buffers are full, and a connection with data under way sends no keepalive probes.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from weakref import WeakKeyDictionary

import aiohttp

from psserve.router.workers.workers import Worker

SILENT_S = 14
"""A connection lives through a cable that is out for 12 s, and a client hears within 15 s: the last sign may have been
given a second before."""
ASKED_AFTER_S = 1
"""Of silence; from then on each second. The kernel asks and is answered by the kernel."""
PULSE_S = 0.5
"""Between attempts to open the connection that feels a pulse, each of which is given as long."""
SILENT = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})
"""What a connection breaks with when the other machine is cut off. A process that ends resets its connections."""

OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""What opening a connection fails with when this side has no descriptor, memory or port left."""


def is_ours(error: OSError) -> bool:
    """Whether a connection could not be opened for want of something here, which says nothing of the other end."""
    return error.errno in OURS


def is_silent(error: Exception) -> bool:
    """Whether a connection broke since its other end was silent. In the middle of a body aiohttp does not tell."""
    return isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno in SILENT)


def patient_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that breaks once the other end's kernel was silent for `SILENT_S` while nothing was under way to it."""
    made = socket.socket(*address[:3])
    _ask_in_silence(made)
    return made


def impatient_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """One that breaks after `SILENT_S` with data under way too.

    It would also break on a worker that lives but does not read for so long, once that one's buffer is full.
    """
    made = patient_socket(address)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000)
    return made


def _ask_in_silence(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, ASKED_AFTER_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENT_S - ASKED_AFTER_S)


class Pulses:
    """Feels the pulse of the machines that are being sent large bodies: once for each worker, however many bodies."""

    def __init__(self) -> None:
        self._pulses: WeakKeyDictionary[Worker, _Pulse] = WeakKeyDictionary()  # workers come and go

    @asynccontextmanager
    async def felt(self, worker: Worker) -> AsyncIterator[None]:
        """What is inside is cancelled once the worker's machine is silent. Raises TimeoutError then."""
        pulse = self._pulses.get(worker)
        if pulse is None or not pulse.scopes or pulse.task.done():  # none: it is cancelled already
            pulse = self._pulses[worker] = _Pulse(worker)
        async with asyncio.timeout(None) as scope:
            pulse.scopes.add(scope)
            try:
                yield
            finally:
                pulse.scopes.discard(scope)
                if not pulse.scopes:
                    pulse.task.cancel()


class _Pulse:
    """That of one worker's machine, felt until nobody needs it or it is silent."""

    def __init__(self, worker: Worker) -> None:
        self.scopes: set[asyncio.Timeout] = set()
        self.task = asyncio.create_task(self._feel(worker))

    async def _feel(self, worker: Worker) -> None:
        await asyncio.sleep(PULSE_S)
        await until_silent(worker.config.host, worker.config.port)
        for scope in self.scopes:
            scope.reschedule(0.0)


async def until_silent(host: str, port: int) -> None:
    """Wait until this machine has given no sign for `SILENT_S`.

    One connection is held: a worker that accepts none has room for few.
    """
    heard = monotonic()
    while monotonic() - heard < SILENT_S:
        asked = monotonic()
        try:
            if await _ended_in_silence(host, port):
                return
            heard = monotonic()
        except OSError as error:  # a TimeoutError too
            if not is_silent(error):  # a refusal
                heard = monotonic()
        await asyncio.sleep(asked + PULSE_S - monotonic())


async def _ended_in_silence(host: str, port: int) -> bool:
    """Hold a connection until it ends: whether that is since its other end was silent for `SILENT_S`.

    Raises OSError: none opens within `PULSE_S`.
    """
    async with asyncio.timeout(PULSE_S):
        reader, writer = await asyncio.open_connection(host, port)
    _ask_in_silence(writer.get_extra_info("socket"))
    try:
        await reader.read()  # nothing is asked, so there is nothing but the end
    except OSError as error:
        return is_silent(error)
    finally:
        writer.close()
    return False
