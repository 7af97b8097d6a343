"""`python -m psserve.fleet.run.probe TASK`: look, from one host of a fleet, whether its servers will reach the others.

It listens where the servers of this host will, and calls at the doors of all other hosts, where the same program runs.
Each line of its output is a Report, and the last one holds. Whoever started it ends it. It imports little: a fleet's
start waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import psutil
from pydantic import BaseModel, ConfigDict

STAYS_S = 60.0
"""Longer than anybody waits for it."""
CALL_S = 2.0
CALL_AGAIN_S = 0.1
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
    """What is wrong as yet: nothing, once all is well."""

    host: str
    here: tuple[str, ...] = ()
    """About the host itself."""
    ways: Mapping[str, tuple[str, ...]] = {}
    """Neighbour -> why it was not reached yet."""
    tried_s: Mapping[str, float] = {}
    """Neighbour -> for how long each of its doors that was not reached yet has been called at."""


@dataclass(frozen=True)
class _Way:
    """A door that was not reached yet."""

    why: str
    tried_s: float


_UNTRIED = _Way("no answer", 0.0)


async def look(
    task: Task, opened: contextlib.ExitStack, tell: Callable[[Report], None] = lambda report: None
) -> Report:
    """Look until all neighbours are reached, and `tell` at first and after each call what is wrong as yet.

    Returns the last report. The doors stay open until the stack is closed.
    """
    here = await _open_doors(task, opened)
    ways = {one.name: dict.fromkeys(one.doors, _UNTRIED) for one in task.neighbours}
    known = {one.name: set(one.doors) for one in task.neighbours}

    def report() -> Report:
        left = {name: doors for name, doors in ways.items() if doors}
        return Report(
            host=task.name,
            here=tuple(here),
            ways={
                name: tuple(f"{door.setting}: {door.address}:{door.port}: {way.why}" for door, way in doors.items())
                for name, doors in left.items()
            },
            tried_s={name: min(way.tried_s for way in doors.values()) for name, doors in left.items()},
        )

    async def reach(name: str, door: Door, group: asyncio.TaskGroup) -> None:
        """Call at a neighbour's door until it opens, and then at those of which is told there."""
        began = monotonic()
        while isinstance(told := await _call(door, name), str):
            await asyncio.sleep(CALL_AGAIN_S)
            ways[name][door] = _Way(told, monotonic() - began)
            tell(report())
        del ways[name][door]
        for new in told.doors:
            if new not in known[name]:
                known[name].add(new)
                ways[name][new] = _UNTRIED
                group.create_task(reach(name, new, group))
        tell(report())

    tell(report())
    async with asyncio.TaskGroup() as group:
        for neighbour in task.neighbours:
            for door in neighbour.doors:
                group.create_task(reach(neighbour.name, door, group))
    return report()


async def _open_doors(task: Task, opened: contextlib.ExitStack) -> list[str]:
    """Receive at this host's doors from now on. Returns what is wrong with them."""
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
            where = f"{door.address}:{door.port}" if door.port else door.address
            here.append(f"{door.setting}: cannot listen on {where}: {_reason(error)}")
            continue
        opened.callback(server.close)
        servers.append(server)
        doors.append(door.model_copy(update={"port": server.sockets[0].getsockname()[1]}))
    for server in servers:  # now that all doors are known
        await server.start_serving()
    return here


def _doors_of_nics(nics: Iterable[str], wrong: list[str]) -> Iterator[Door]:
    """A door on each of the interfaces. Adapters for RDMA have no addresses, and are passed over if they are there."""
    there = psutil.net_if_addrs()
    for nic in nics:
        setting = f"UCX_NET_DEVICES={nic}"
        if is_no_interface(nic):
            continue
        addresses = [one.address for one in there.get(nic, ()) if one.family == socket.AF_INET]
        if addresses:
            yield Door(setting=setting, address=addresses[0], port=0)
        elif nic in there:
            wrong.append(f"{setting}: this interface has no IPv4 address")
        else:
            wrong.append(f"{setting}: there is no such interface, only {', '.join(sorted(there))}")


def is_no_interface(nic: str) -> bool:
    """Whether this value of `UCX_NET_DEVICES` is right, and means something else than an interface."""
    return nic == "all" or Path("/sys/class/infiniband", nic.partition(":")[0]).exists()


async def _call(door: Door, name: str) -> Neighbour | str:
    """What is told at a door, or why nothing was."""
    try:
        async with asyncio.timeout(CALL_S):
            return await _deliver(door, name)
    except (OSError, EOFError, ValueError) as error:
        return _reason(error)


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
    with contextlib.ExitStack() as opened, contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STAYS_S):
            await look(Task.model_validate_json(sys.argv[1]), opened, _print)
            await asyncio.Event().wait()  # for those that come late


def _print(report: Report) -> None:
    print(report.model_dump_json(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
