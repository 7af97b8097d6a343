"""`python -m psserve.fleet.run.probe TASK`: look, from one host of a fleet, whether its servers will reach the others.

It listens where the servers of this host will, and calls at the doors of all other hosts, where the same program runs.
Its last line of output is a Report.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import monotonic

import psutil
from pydantic import BaseModel, ConfigDict

PATIENCE_S = 6.0
"""For other hosts to be there; this program may have been started before theirs."""
STAYS_S = 15.0
"""For those that come late. Whoever started it ends it sooner."""
CALL_S = 2.0
BULK = 64 * 1024
"""Bytes of one parcel: more than a packet, so that a path that loses large packets is noticed."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Door(_Message):
    """Where servers of a host listen, and the setting that says so."""

    setting: str
    address: str
    port: int


class Neighbour(_Message):
    """Another host, and the doors that are known before anybody calls there."""

    name: str
    doors: tuple[Door, ...]


class Task(_Message):
    """What the program on one host is to look at."""

    name: str
    doors: tuple[Door, ...] = ()
    """Port 0: any."""
    nics: tuple[str, ...] = ()
    """Interfaces that KV goes through: `UCX_NET_DEVICES`."""
    neighbours: tuple[Neighbour, ...] = ()


class Report(_Message):
    """What was found wrong: nothing, if all is well."""

    host: str
    here: tuple[str, ...] = ()
    """About the host itself."""
    ways: Mapping[str, tuple[str, ...]] = {}
    """Neighbour -> why it cannot be reached."""


async def look(task: Task, opened: contextlib.ExitStack) -> Report:
    """Look at everything. The doors stay open until the stack is closed."""
    here: list[str] = []
    doors: list[Door] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell who calls our name and all our doors, and take the parcel."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            writer.write(Neighbour(name=task.name, doors=tuple(doors)).model_dump_json().encode() + b"\n")
            await reader.readexactly(BULK)
            writer.write(b"\n")
            await writer.drain()
        writer.close()

    servers: list[asyncio.Server] = []
    for door in [*task.doors, *_doors_of_nics(task.nics, here)]:
        try:
            server = await asyncio.start_server(receive, door.address, door.port, start_serving=False)
        except OSError as error:
            here.append(f"{door.setting}: cannot listen on {door.address}: {_reason(error)}")
            continue
        opened.callback(server.close)
        servers.append(server)
        doors.append(door.model_copy(update={"port": server.sockets[0].getsockname()[1]}))
    for server in servers:  # now that all doors are known
        await server.start_serving()
    deadline = monotonic() + PATIENCE_S
    wrong = await asyncio.gather(*(_call_all(one, deadline) for one in task.neighbours))
    ways = {one.name: tuple(found) for one, found in zip(task.neighbours, wrong, strict=True) if found}
    return Report(host=task.name, here=tuple(here), ways=ways)


def _doors_of_nics(nics: Iterable[str], wrong: list[str]) -> Iterator[Door]:
    """A door on each of the interfaces. Adapters for RDMA have no addresses, and are passed over if they are there."""
    there = psutil.net_if_addrs()
    for nic in nics:
        setting = f"UCX_NET_DEVICES={nic}"
        if nic == "all" or Path("/sys/class/infiniband", nic.partition(":")[0]).exists():
            continue
        addresses = [one.address for one in there.get(nic, ()) if one.family == socket.AF_INET]
        if addresses:
            yield Door(setting=setting, address=addresses[0], port=0)
        elif nic in there:
            wrong.append(f"{setting}: this interface has no IPv4 address")
        else:
            wrong.append(f"{setting}: there is no such interface, only {', '.join(sorted(there))}")


async def _call_all(neighbour: Neighbour, deadline: float) -> list[str]:
    """Call at a neighbour's doors, and at those of which it tells. Returns what went wrong."""
    wrong: list[str] = []
    known = list(neighbour.doors)
    for door in known:  # which grows meanwhile
        told = await _call(door, neighbour.name, deadline)
        if isinstance(told, str):
            wrong.append(f"{door.setting}: {door.address}:{door.port}: {told}")
        else:
            known += [one for one in told.doors if one not in known]
    return wrong


async def _call(door: Door, name: str, deadline: float) -> Neighbour | str:
    """What is told at a door, or why nothing was by the deadline."""
    why = "no answer"
    while (left := deadline - monotonic()) > 0:
        try:
            async with asyncio.timeout(min(CALL_S, left)):
                return await _deliver(door, name)
        except (OSError, EOFError, ValueError) as error:
            why = _reason(error)
            await asyncio.sleep(0.1)
    return why


async def _deliver(door: Door, name: str) -> Neighbour:
    """Deliver a parcel. Raises OSError, EOFError, or ValueError: somebody else is there."""
    reader, writer = await asyncio.open_connection(door.address, door.port)
    try:
        neighbour = Neighbour.model_validate_json(await reader.readline())
        if neighbour.name != name:
            raise ValueError(f"{neighbour.name} is there")
        writer.write(b" " * BULK)
        await reader.readexactly(1)
        return neighbour
    finally:
        writer.close()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return "no answer" if isinstance(error, (TimeoutError, EOFError)) else str(error)


async def main() -> None:
    with contextlib.ExitStack() as opened:
        report = await look(Task.model_validate_json(sys.argv[1]), opened)
        print(report.model_dump_json(), flush=True)
        await asyncio.sleep(STAYS_S)


if __name__ == "__main__":
    asyncio.run(main())
