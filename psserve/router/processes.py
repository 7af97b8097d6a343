"""A router of several processes: they listen on one port, and the kernel deals clients' connections out among them.

This one serves nobody. It starts them, passes signals on, and ends them all with the first that ends: whoever started
it, the supervisor, then starts a whole router anew.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from os import getpid
from pathlib import Path

import orjson

from psserve.contracts.programs import program
from psserve.contracts.router_config import RouterConfig
from psserve.engine.process import die_with_parent
from psserve.errors import StartError


async def run_processes(config: RouterConfig, path: Path, announce: Callable[[str], None]) -> None:
    """Serve by `config.router_workers` processes, configured by the file `path`, until a signal.

    `announce` is told the URL once all of them listen. Raises StartError: one of them did not, or ended by itself.
    """
    with _reserved(config) as port, tempfile.TemporaryDirectory(prefix="psserve-router-") as folder:
        seats = [("--number", str(n), "--port", str(port), "--folder", folder) for n in range(config.router_workers)]
        members = [await _start(path, seat) for seat in seats]
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _pass_on, members, number, stopping)
        try:
            urls = [await _listening(member) for member in members]
            loop.add_signal_handler(signal.SIGHUP, _pass_on, members, signal.SIGHUP, stopping)
            announce(urls[0])
            await asyncio.wait([asyncio.ensure_future(m.wait()) for m in members], return_when=asyncio.FIRST_COMPLETED)
            if not stopping.is_set():
                raise StartError("a process of the router ended by itself")
            await asyncio.gather(*(member.wait() for member in members))
        finally:
            for member in members:
                if member.returncode is None:
                    member.kill()
                await member.wait()


@contextmanager
def _reserved(config: RouterConfig) -> Iterator[int]:
    """The port that all of them will listen on: bound, so that nobody else gets it. Raises StartError."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as holder:
        try:
            if config.port:  # which must be nobody's: others of ours could listen beside a router that runs already
                with socket.socket(family) as alone:
                    alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    alone.bind((config.host, config.port))
                    alone.listen()
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind((config.host, config.port))
        except OSError as error:
            raise StartError(f"router cannot listen on {config.host}:{config.port}: {error.strerror}") from error
        yield holder.getsockname()[1]


async def _start(path: Path, seat: Sequence[str]) -> Process:
    """A process of the router; its log goes where ours does."""
    command = program("psserve.router", "--config", str(path), *seat)
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, preexec_fn=partial(die_with_parent, getpid()))


def _pass_on(members: Sequence[Process], number: signal.Signals, stopping: asyncio.Event) -> None:
    if number != signal.SIGHUP:
        stopping.set()
    for member in members:
        with suppress(ProcessLookupError):
            member.send_signal(number)


async def _listening(member: Process) -> str:
    """The URL of a process, once it listens. Raises StartError: it has ended before."""
    assert member.stdout is not None  # it is a pipe
    line = await member.stdout.readline()
    if not line:
        raise StartError("a process of the router did not start")
    return str(orjson.loads(line)["url"])
