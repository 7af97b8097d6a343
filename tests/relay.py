"""relay.py SOCKET ADDRESS PORT: carry bytes between the clients of a listening socket, given by number, and a port.

A socket stays in the network that it was made in: so a process in one network serves clients in another.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys


async def main(listening: socket.socket, address: str, port: int) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other_reader, other_writer = await asyncio.open_connection(address, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_carry(reader, other_writer), _carry(other_reader, writer))

    server = await asyncio.start_server(relay, sock=listening)
    await server.serve_forever()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either end is gone; then the other end's way is closed, too."""
    with contextlib.suppress(OSError):
        while received := await reader.read(1 << 16):
            writer.write(received)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], int(sys.argv[3])))
