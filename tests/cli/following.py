"""A fleet that answers what it is told to do."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from psserve.fleet.live.control_socket import ControlSocket, Tell
from psserve.fleet.run.protocol import ChangeReply, ChangeRequest, control_path
from psserve.fleet.run.state import ServerState
from psserve.zoo import Zoo

from .zoo_commands import pretend_serving


@dataclass
class Fleet:
    """Serves alpha, and answers each request for a change with `fails` or success."""

    zoo: Zoo
    fails: str | None = None
    asked: list[str] = field(default_factory=list)
    names: list[list[str]] = field(default_factory=list)
    """The zoo's modules when it was asked."""
    told: dict[str, object] = field(default_factory=dict)
    """What its router was told."""

    async def make(self, request: ChangeRequest, tell: Tell) -> ChangeReply:
        self.asked.append(request.title)
        self.names.append([module.name for module in self.zoo.modules()])
        tell("working")
        return ChangeReply(error=self.fails) if self.fails else ChangeReply(done="followed")

    def has_trial(self, version: int, share: float = 10) -> None:
        """Let its router have been told that a version of alpha is on trial."""
        trial = {"zoo_version": version, "share": share}
        self.tell_router(modules=[{"name": "alpha", "zoo_version": 1, "trial": trial}, {"name": "beta"}])

    def tell_router(self, **fields: object) -> None:
        """Let its router have been told this too."""
        self.told |= fields
        (self.zoo.path / ".run" / "router.json").write_text(json.dumps(self.told))


@contextmanager
def serving_alpha(zoo: Zoo, folder: Path, url: str = "http://127.0.0.1:30000") -> Iterator[Fleet]:
    """The fleet of a zoo, whose router is at `url`, and whose control socket is in `folder`."""
    server = ServerState(name="decode-alpha-0", role="decode", module="alpha", port=1, state="ready", log="")
    pretend_serving(zoo, server, tmp_dir=str(folder), url=url)
    fleet, loop = Fleet(zoo), asyncio.new_event_loop()
    socket = ControlSocket(control_path(folder), fleet.make)
    loop.run_until_complete(socket.open())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield fleet
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(socket.close())
        loop.close()
