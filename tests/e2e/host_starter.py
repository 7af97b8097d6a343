"""Starting a fleet's servers on hosts that are namespaces (tests/hosts.py), from the switch that they are connected by.

On each host an agent starts them with psserve's own starter. It is a fork of the process that launches the fleet, which
has imported SGLang, and so are the servers' preloaded processes: nothing is imported again on any host.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from psserve.engine.process import die_with_parent
from psserve.errors import HostLost, StartError
from psserve.fleet.plan.host import LOCAL
from psserve.fleet.plan.spec import ServerSpec
from psserve.fleet.run import preload
from psserve.fleet.run.process import (
    Handle,
    Runnable,
    Starter,
    SubprocessStarter,
    become_subreaper,
    sweep_descendants,
)
from tests.e2e.forked_launch import ForkedPreload
from tests.hosts import NIC, Place


class HostStarter:
    """Starts what is of a host there, all else here."""

    def __init__(self, hosts: Mapping[str, Place], logs: Path) -> None:
        self._hosts, self._logs = hosts, logs
        self._here = SubprocessStarter()
        self._agents: dict[str, _Agent] = {}

    @property
    def lost_hosts(self) -> frozenset[str]:
        """Those that were off when something was last asked of them."""
        return frozenset(name for name, agent in self._agents.items() if agent.is_lost)

    def start(self, spec: Runnable) -> Handle:
        name = spec.host_name
        if name == LOCAL:
            return self._here.start(spec)
        if name not in self._agents or self._agents[name].is_lost:
            self._agents[name] = _Agent(self._hosts[name], self._logs / f"preload-{name}.log")
        agent = self._agents[name]
        number = agent.ask("start", spec)
        if agent.is_lost:
            raise HostLost(f"the host {name} is off")
        return _RemoteHandle(agent, number)

    def close(self) -> None:
        """End all agents, and with them what they started."""
        for agent in self._agents.values():
            agent.close()


class SplitStarter:
    """Starts one of the servers as two halves, as a LeaderWorkerSet does: the second one on another host."""

    def __init__(self, starter: Starter, server: str, second: Place) -> None:
        self._starter, self._server, self._second = starter, server, second

    @property
    def lost_hosts(self) -> frozenset[str]:
        return self._starter.lost_hosts

    def start(self, spec: Runnable) -> Handle:
        if spec.name != self._server:
            return self._starter.start(spec)
        assert isinstance(spec, ServerSpec)
        first = self._starter.start(_half(spec, spec, 0))
        second = replace(
            spec,
            name=f"{spec.name}-second",
            host_name=self._second.name,
            host=self._second.address,
            log=spec.log.with_name(f"{spec.name}-second.log"),
        )
        self._starter.start(_half(second, spec, 1))
        return first

    def close(self) -> None:
        self._starter.close()


def _half(spec: ServerSpec, first: ServerSpec, rank: int) -> ServerSpec:
    """The part of a server with this rank; both meet where the first one runs."""
    command = list(spec.command)
    command[command.index("--host") + 1] = spec.host
    meet = f"{first.host}:{first.port + 3}"
    command += ["--nnodes", "2", "--node-rank", str(rank), "--dist-init-addr", meet]
    env = {name: value for name, value in spec.env.items() if name != "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"}
    own = {"SGLANG_HOST_IP": spec.host, "GLOO_SOCKET_IFNAME": NIC, "NCCL_SOCKET_IFNAME": NIC}
    return replace(spec, command=tuple(command), env=env | own)


class _Agent:
    """The process that starts servers on one host, as seen from the switch."""

    def __init__(self, host: Place, log: Path) -> None:
        self.is_lost = False
        self._connection, its = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _become_agent(host, its, log)
        its.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """What its method returns; None once the host is lost. Raises StartError."""
        if self.is_lost:
            return None
        try:
            self._connection.send((method, *arguments))
            answer = self._connection.recv()
        except (OSError, EOFError):
            self.close()
            return None
        if isinstance(answer, StartError):
            raise answer
        return answer

    def close(self) -> None:
        """Let it end, and wait for that."""
        if not self.is_lost:
            self.is_lost = True
            self._connection.close()
            os.waitpid(self._pid, 0)


@dataclass(frozen=True)
class _RemoteHandle:
    """A process on a host. Its pid means nothing on this side."""

    agent: _Agent
    number: int
    pid = None
    awaits_files = False

    @property
    def is_lost(self) -> bool:
        return self.agent.is_lost

    def poll(self) -> int | None:
        code: int | None = self.agent.ask("poll", self.number)
        return code

    def terminate(self) -> None:
        self.agent.ask("terminate", self.number)

    def kill(self) -> None:
        self.agent.ask("kill", self.number)

    def tail(self, lines: int) -> list[str]:
        return self.agent.ask("tail", self.number, lines) or []

    def memory(self) -> None: ...


def _become_agent(host: Place, connection: Connection, log: Path) -> None:
    """The fork's whole life; never returns. What it forks is on the host, and that is the agent."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        os.closerange(3, connection.fileno())
        os.closerange(connection.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        host.enter(from_outside=False)
        if agent := os.fork():
            connection.close()
            os.waitpid(agent, 0)
        else:
            die_with_parent()
            _serve(connection, log)
    except BaseException:  # noqa: BLE001 - a host that is off, or a bug: this never goes back into the launch
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(0)


def _serve(connection: Connection, log: Path) -> None:
    """Do what the starter asks, until it is gone."""
    become_subreaper()
    preload.start_preloading = ForkedPreload
    starter = preload.PreloadStarter(log)
    handles: list[Handle] = []
    with contextlib.suppress(EOFError):
        while True:
            method, *arguments = connection.recv()
            try:
                if method == "start":
                    handles.append(starter.start(*arguments))
                    answer: object = len(handles) - 1
                else:
                    number, *rest = arguments
                    answer = getattr(handles[number], method)(*rest)
            except StartError as error:
                answer = error
            connection.send(answer)
    starter.close()
    sweep_descendants()
