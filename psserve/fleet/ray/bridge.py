"""`python -m psserve.fleet.ray.bridge`: between a supervisor and a Ray cluster, spoken with in lines of JSON.

Ray is imported here, in a process of its own, and nowhere else: when Ray's own processes end, Ray ends whatever
process is connected to them. The agents go on, and another bridge finds them by their names. See messages.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from psserve.engine.process import die_with_parent
from psserve.fleet.ray.agent import settings
from psserve.fleet.ray.domain import largest_domain, offering
from psserve.fleet.ray.messages import Event, HostView, Order, Task
from psserve.fleet.ray.node import START_S, Node, Refused, answer, said

_HEAD = "node:__internal_head__"


class Bridge:
    """All machines of one fleet."""

    def __init__(self, task: Task, events: TextIO) -> None:
        self._task, self._events = task, events
        self._nodes: dict[str, Node] = {}
        self._following: list[asyncio.Task[None]] = []

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Serve until standard input ends. Raises Refused."""
        if self._task.hosts:
            self._nodes = {name: Node(self._task, name) for name in self._task.hosts}
        else:
            await self._survey()
        self._following = [asyncio.create_task(node.follow(self._tell_view)) for node in self._nodes.values()]
        while line := await orders.readline():
            await self._obey(Order.model_validate_json(line))

    async def _obey(self, order: Order) -> None:
        if order.host is not None and order.host in self._nodes:
            self._nodes[order.host].obey(order)
        if order.shares:
            asked = [(name, path) for name in self._nodes for path in order.shares]
            found = await asyncio.gather(*(self._nodes[name].shares(path, order.shares[path]) for name, path in asked))
            missing = [f"{name}: {path}" for (name, path), there in zip(asked, found, strict=True) if not there]
            self._tell(missing=missing)
        if order.close:
            for task in self._following:
                task.cancel()
            await self._close()
            self._tell(closed=True)

    async def _survey(self) -> None:
        """Find the machines, start an agent on each, and tell what a plan must know of them."""
        alive = [node for node in await asyncio.to_thread(ray.nodes) if node["Alive"]]
        wanted = offering(alive, on_gpus=self._task.on_gpus)
        if not wanted:
            raise Refused("no machine of the Ray cluster offers a GPU or a CPU: ray start --num-cpus")
        if self._task.domain_label is not None:
            wanted = largest_domain(wanted, self._task.domain_label, on_gpus=self._task.on_gpus)
        if not wanted:
            raise Refused(
                f"cluster.topology_strategy: no machine of the Ray cluster has the label {self._task.domain_label}:"
                f" ray start --labels {self._task.domain_label}=NAME"
            )
        names = [node["NodeManagerAddress"] for node in wanted]
        if twice := {name for name in names if names.count(name) > 1}:
            raise Refused(f"two nodes of the Ray cluster have the address {min(twice)}: stop one of them")
        self._nodes = {name: Node(self._task, name) for name in names}
        looks = (self._nodes[name].first_look(node) for name, node in zip(names, wanted, strict=True))
        found = await asyncio.gather(*looks, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                await self._close()
                raise one
        head = next((node for node in alive if _HEAD in node["Resources"]), None)
        its = {} if head is None else await _settings_of(head)
        serving = next((name for name, node in zip(names, wanted, strict=True) if _HEAD in node["Resources"]), None)
        self._tell(hosts=found, head=its, head_host=serving)

    async def _close(self) -> None:
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    def _tell_view(self, view: HostView) -> None:
        self._tell(view=view)

    def _tell(self, **event: Any) -> None:
        self._events.write(Event(**event).line().decode())
        self._events.flush()


async def _settings_of(node: Mapping[str, Any]) -> dict[str, str]:
    where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    found: dict[str, str] = await answer(
        ray.remote(settings).options(num_cpus=0, scheduling_strategy=where).remote(), START_S
    )
    return found


def _connect(task: Task) -> None:
    try:
        with contextlib.chdir("/"):  # where agents look for whatever they import: not in the user's folder
            ray.init(address=task.address, namespace=task.fleet, log_to_driver=False, configure_logging=False)
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise Refused(
            f"no way into the Ray cluster at {task.address}: {said(error)} (this machine must be one of its nodes, and"
            " psserve have the token of its ray start)"
        ) from None


async def _main(task: Task, events: TextIO) -> None:
    orders = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    await Bridge(task, events).run(orders)


def main() -> int:
    """Speak with the supervisor until it closes standard input. Returns the exit status."""
    die_with_parent()
    events = os.fdopen(os.dup(1), "w")  # what a package prints goes to standard error
    os.dup2(2, 1)
    with open(0, "rb", buffering=0, closefd=False) as given:  # it takes no byte of what comes after
        task = Task.model_validate_json(given.readline())
    try:
        _connect(task)
        asyncio.run(_main(task, events))
    except Refused as error:
        print(f"psserve: error: {error}", file=sys.stderr)
        events.write(Event(error=str(error)).line().decode())
        events.flush()
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # Ray's own end may wait for a cluster that has gone; agents are detached from this process
