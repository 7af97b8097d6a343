"""Connections over TLS are counted from their being accepted, and peers that never say a word end soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from psserve.contracts.limits import RequestLimits
from psserve.contracts.tls import client_context, server_context
from psserve.router.access import handshake
from psserve.router.access.server import TOLD, make_runner
from tests.certificates import certificate
from tests.router.access.test_borders import tls_router
from tests.router.conftest import PATIENCE_S, eventually

LIMIT = 3


@asynccontextmanager
async def silent(port: int) -> AsyncIterator[asyncio.StreamReader]:
    """A connection that says nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader
    finally:
        writer.close()


async def status(port: int, cert: Path) -> bytes:
    """What a client that speaks TLS is answered; nothing when it is turned away."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(cert))
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return (await reader.read())[9:12]
    except OSError:
        return b""


async def test_peers_that_say_nothing_count_as_connections(tmp_path: Path) -> None:
    """In a router of its own: its event loop is another one."""
    async with tls_router(tmp_path, limits={"connections": LIMIT}) as (port, cert):
        async with AsyncExitStack() as held:
            for _ in range(LIMIT - 1):
                await held.enter_async_context(silent(port))
            await eventually(lambda: _is(b"200", port, cert))
            await held.enter_async_context(silent(port))
            await eventually(lambda: _is(b"503", port, cert))
        await eventually(lambda: _is(b"200", port, cert))


async def _is(wanted: bytes, port: int, cert: Path) -> bool:
    return await status(port, cert) == wanted


async def test_who_comes_when_many_are_told_already_is_turned_away(tmp_path: Path) -> None:
    async with tls_router(tmp_path, limits={"connections": LIMIT}) as (port, cert), AsyncExitStack() as held:
        for _ in range(LIMIT + TOLD):
            await held.enter_async_context(silent(port))
        await eventually(lambda: _is(b"", port, cert))


async def test_a_peer_that_says_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_S", 0.2)
    cert, key = certificate(tmp_path)
    runner = make_runner(web.Application(), RequestLimits(connections=1), 0.1, server_context(cert, key))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        async with silent(port) as reader, asyncio.timeout(PATIENCE_S):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            await eventually(lambda: _is(b"404", port, cert))
    finally:
        await runner.cleanup()
