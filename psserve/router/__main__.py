"""`python -m psserve.router --config FILE`: serve until SIGTERM or SIGINT, then drain; a second signal ends at once.

It reads FILE again on SIGHUP, and when FILE was replaced by one with another serial.
Prints one JSON line on stdout when it listens; logs go to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import sys
from functools import partial
from pathlib import Path

import orjson
import uvloop
from aiohttp import web

from psserve.contracts.router_config import RouterConfig, load_config
from psserve.contracts.tls import ServerCertificate
from psserve.errors import PsserveError, StartError, UsageError
from psserve.router.access.server import keep_renewed, make_runner
from psserve.router.app import make_app
from psserve.router.observability.log import write_logs
from psserve.router.processes import run_processes
from psserve.router.siblings import Seat, Siblings, divided
from psserve.router.state import STATE, RouterState

LOOK_AGAIN_S = 1.0
"""Between two looks whether the configuration is another."""
BACKLOG = 4096
"""Connections that may wait to be accepted while others are served: where it is short, Linux resets some of them."""
log = logging.getLogger("psserve.router")


async def follow(state: RouterState, path: Path) -> None:
    """Serve what `path` says whenever it is a file with another serial: who writes it need not be on this machine."""
    known = None  # it may have been replaced since it was read
    while True:
        await asyncio.sleep(LOOK_AGAIN_S)
        if (found := _stamp(path)) not in (known, None):
            known = found
            reload(state, path, only_new=True)


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What differs once a file has been replaced or written; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def reload(state: RouterState, path: Path, *, only_new: bool = False) -> None:
    """Serve what `path` says now, or `only_new`: if its serial is another.

    A file that cannot be taken over is logged, and changes nothing.
    """
    try:
        config = divided(load_config(path))
        if only_new and config.serial == state.config.serial:
            return
        state.reconfigure(config)
    except UsageError as error:
        log.error("configuration not taken over: %s", error)
        return
    modules = ",".join(module.name for module in config.modules)
    workers = ",".join(worker.name for worker in config.workers)
    log.info("configuration serial=%d modules=%s workers=%s", config.serial, modules, workers)


async def serve(config: RouterConfig, path: Path, seat: Seat | None = None) -> None:
    """Run the router, configured by the file `path`, until a signal, or the process of it that has this seat.

    Raises StartError: the address cannot be bound.
    """
    stop, now = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: now.set() if stop.is_set() else stop.set())
    certificate = None
    if config.ssl_certfile is not None and config.ssl_keyfile is not None:
        certificate = ServerCertificate(config.ssl_certfile, config.ssl_keyfile)
    config = divided(config)
    port = config.port if seat is None else seat.port
    app = make_app(config, Siblings(seat, config.router_workers))
    tls = None if certificate is None else certificate.context
    runner = make_runner(app, config.limits, config.drain_timeout_s, tls)
    await runner.setup()
    loop.add_signal_handler(signal.SIGHUP, partial(reload, app[STATE], path))
    try:
        site = web.TCPSite(runner, config.host, port, backlog=BACKLOG, reuse_port=None if seat is None else True)
        try:
            await site.start()
        except OSError as error:
            raise StartError(f"router cannot listen on {config.host}:{port}: {error.strerror}") from error
        # All that is there now stays: the collector need not look through it every few hundred requests, for 24 ms.
        gc.collect()
        gc.freeze()
        _announce(_url("http" if certificate is None else "https", config.host, runner.addresses[0][1]))
        watching = [asyncio.create_task(follow(app[STATE], path))]
        if certificate is not None:
            watching.append(asyncio.create_task(keep_renewed(certificate)))
        await stop.wait()
        for task in watching:
            task.cancel()
        app[STATE].draining = True
    finally:
        await _drain(runner, now)


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _announce(url: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must not end the router that the supervisor starts anew on it
        sys.stdout.buffer.write(orjson.dumps({"event": "listening", "url": url}) + b"\n")
        sys.stdout.buffer.flush()


async def _drain(runner: web.AppRunner, now: asyncio.Event) -> None:
    """Stop listening and let requests finish, for `drain_timeout_s` or until `now`."""
    cleanup = asyncio.create_task(runner.cleanup())
    hurry = asyncio.create_task(now.wait())
    await asyncio.wait((cleanup, hurry), return_when=asyncio.FIRST_COMPLETED)
    for task in (cleanup, hurry):
        task.cancel()


def main() -> int:
    parser = argparse.ArgumentParser(prog="psserve.router", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON file, see psserve/contracts/router_config.py")
    for option, kind in (("--number", int), ("--port", int), ("--folder", Path)):
        parser.add_argument(option, type=kind, help=argparse.SUPPRESS)  # a process of a router that has several
    try:
        options = parser.parse_args()
        config = load_config(options.config)
        write_logs(config.log_format)
        if options.number is not None:
            uvloop.run(serve(config, options.config, Seat(options.number, options.port, options.folder)))
        elif config.router_workers > 1:
            uvloop.run(run_processes(config, options.config, _announce))
        else:
            uvloop.run(serve(config, options.config))
    except PsserveError as error:
        print(f"psserve: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
