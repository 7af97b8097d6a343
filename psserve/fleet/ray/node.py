"""A machine of a Ray cluster, and the agent there: found or started, asked, obeyed, and followed.

Beside bridge.py the only part of psserve that imports Ray, and used by it alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from psserve.fleet.ray.agent import Agent
from psserve.fleet.ray.messages import HostFacts, HostView, Order, Run, Seen, Task
from psserve.fleet.ray.shipping import Damaged, ship

LOOK_S = 0.5
ANSWER_S = 15.0
"""A machine whose agent gives no answer for so long is lost."""
START_S = 60.0
"""For Ray to start an agent, which imports psserve."""
SHIP_S = 300.0
"""For a piece of a file to be taken, or looked through."""
CLAIM_S = 25.0
"""For an agent's earlier owner to turn out to be silent."""
AGAIN_S = 2.0
"""Between two looks for a machine that is lost."""
NEW_S = 30.0
"""A bridge that has just come up takes no machine for lost: Ray's head, which was away, may not know it yet."""


class Refused(Exception):
    """The bridge cannot do what it is for; the text goes to the user."""


class Node:
    """One machine of the fleet, and its agent."""

    def __init__(self, task: Task, name: str) -> None:
        self._task = task
        self.name = name
        self._agent: Any = None
        self._waiting: list[Order] = []
        """Those that came before the agent was found."""
        self._calls: deque[Callable[[Any], Any]] = deque()
        """What its agent is to do, and is not known to have done: each calls it, and gives Ray's reference."""
        self._calling: asyncio.Task[None] | None = None
        self._shipping: dict[str, asyncio.Task[None]] = {}
        """Run -> what starts it once its files are there."""
        self._sends = asyncio.Lock()
        """Checkpoints have files in common, which are to be sent once."""
        self._told: HostView | None = None

    async def first_look(self, node: Mapping[str, Any]) -> HostFacts:
        """Get an agent on this node, and ask it for what a plan must know. Raises Refused."""
        was_there = await asyncio.to_thread(self._known_agent) is not None
        try:
            await self.find(node)
            found = await answer(self._agent.facts.remote(self.name, self._task.nic), START_S)
            return HostFacts.model_validate({**found, "labels": node["Labels"]})
        except TimeoutError:
            agent, self._agent = self._agent, None
            if not was_there:  # or it would take what it reserves whenever that becomes free
                await asyncio.to_thread(ray.kill, agent)
            raise Refused(
                f"{self.name}: Ray starts no agent there within {START_S:g} s: its CPUs or GPUs are in use (ray status)"
            ) from None
        except RayError as error:
            self._agent = None
            raise Refused(f"{self.name}: Ray cannot start psserve's agent there: {said(error)}") from None

    def _known_agent(self) -> Any:
        try:
            return ray.get_actor(self.name, namespace=self._task.fleet)
        except ValueError:  # Ray's word for: no such actor
            return None

    async def find(self, node: Mapping[str, Any]) -> None:
        """Get the agent that is on this node, or have Ray start one. Raises RayError, TimeoutError, Refused."""
        options = {
            "name": self.name,
            "namespace": self._task.fleet,
            "get_if_exists": True,
            "lifetime": "detached",
            "max_restarts": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            **_reserved(node["Resources"], self._task.on_gpus),
        }
        actor = ray.remote(Agent).options(**options)
        self._agent = await asyncio.to_thread(actor.remote, self._task.owner, self._task.lease_s)
        if self._task.claims:
            await self._claim()
        self._keep_calling()  # what the agent before may not have done
        waiting, self._waiting = self._waiting, []
        for order in waiting:
            self.obey(order)

    async def _claim(self) -> None:
        deadline = asyncio.get_running_loop().time() + CLAIM_S
        while not await answer(self._agent.claim.remote(self._task.owner, self._task.lease_s), START_S):
            if asyncio.get_running_loop().time() > deadline:
                self._agent = None
                raise Refused(f"{self.name} works for another fleet of this zoo, which runs: end it with psserve stop")
            await asyncio.sleep(LOOK_S)

    async def look(self) -> Seen:
        """See what runs. Raises RayError, TimeoutError: the machine or its agent is lost."""
        deadline = asyncio.get_running_loop().time() + ANSWER_S
        while True:
            try:
                return Seen.model_validate(await answer(self._agent.look.remote(), ANSWER_S))
            except ActorUnavailableError:  # Ray connects anew by itself
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(LOOK_S)

    async def follow(self, tell: Callable[[HostView], None]) -> None:
        """Tell what is seen whenever it is something new; find another agent where this one is lost."""
        clock = asyncio.get_running_loop().time
        sure_at = clock() + NEW_S
        while True:
            view = await self._view()
            if view.seen is not None or self._told is not None or clock() > sure_at:
                self._tell(view, tell)
            await asyncio.sleep(AGAIN_S if view.seen is None else LOOK_S)

    def _tell(self, view: HostView, tell: Callable[[HostView], None]) -> None:
        if view.seen is None:
            for task in self._shipping.values():
                task.cancel()
            self._waiting.clear()  # what they were about is lost too
            self._calls.clear()
        if view != self._told:
            self._told = view
            tell(view)

    async def _view(self) -> HostView:
        try:
            if self._agent is None:
                await self.find(await self._ray_node())
            return HostView(host=self.name, seen=await self.look())
        except (RayError, TimeoutError, LookupError, Refused) as error:
            self._agent = None
            if self._calling is not None:
                self._calling.cancel()
            return HostView(host=self.name, why=said(error))

    async def _ray_node(self) -> Mapping[str, Any]:
        nodes: list[Mapping[str, Any]] = await asyncio.to_thread(ray.nodes)
        node = next((node for node in nodes if node["Alive"] and node["NodeManagerAddress"] == self.name), None)
        if node is None:
            raise LookupError(f"no machine of the cluster has the address {self.name} now")
        return node

    def obey(self, order: Order) -> None:
        """Pass an order on. What comes of it, the next look shows."""
        if self._agent is None:
            self._waiting.append(order)
        elif order.start is not None and order.start.ships is not None:
            self._shipping[order.start.id] = asyncio.create_task(self._ship(self._agent, order.start))
        elif order.start is not None:
            self._start(order.start)
        elif order.end in self._shipping:
            self._shipping[order.end].cancel()
        elif order.end is not None:
            self._call(lambda agent: agent.signal.remote(order.end, kill=order.signal == "kill"))

    def _start(self, run: Run) -> None:
        self._call(lambda agent: agent.start.remote(run.model_dump(mode="json")))

    def _refuse(self, run: Run, reason: str) -> None:
        self._call(lambda agent: agent.refuse.remote(run.id, run.name, reason))

    def _call(self, call: Callable[[Any], Any]) -> None:
        """Have the agent do something, after all that it was told to do before."""
        self._calls.append(call)
        self._keep_calling()

    def _keep_calling(self) -> None:
        if self._agent is not None and (self._calling is None or self._calling.done()):
            self._calling = asyncio.create_task(self._call_all(self._agent))

    async def _call_all(self, agent: Any) -> None:
        """Make each call until it has been answered.

        One that was on its way when a connection broke may have arrived or not: Ray does not repeat it, or not in
        order. Whatever a call does is done once, however often it arrives.
        """
        while self._calls and self._agent is agent:
            try:
                await asyncio.wrap_future(self._calls[0](agent).future())
            except ActorUnavailableError:  # Ray connects anew by itself
                await asyncio.sleep(LOOK_S)
                continue
            except RayActorError:  # it is lost, which the next look shows
                return
            except RayError as error:
                print(f"{self.name}: {said(error)}", file=sys.stderr, flush=True)
            self._calls.popleft()

    async def _ship(self, agent: Any, run: Run) -> None:
        """Start a run on the machine of `agent` when its checkpoint is there."""
        assert run.ships is not None, "it has a checkpoint that is to be sent"

        async def call(method: str, *arguments: Any) -> Any:
            return await answer(getattr(agent, method).remote(*arguments), SHIP_S)

        try:
            async with self._sends:
                there = str(await ship(run.ships, call))
            command = tuple(there if word == str(run.ships) else word for word in run.command)
            self._start(run.model_copy(update={"command": command}))
        except asyncio.CancelledError:
            if self._agent is not None:  # else its machine is lost, and it with it
                self._refuse(run, "it was told to end before its files were sent")
        except (OSError, Damaged, RayError, TimeoutError) as error:
            self._refuse(run, f"its files cannot be sent: {said(error)}")
        finally:
            del self._shipping[run.id]

    async def shares(self, path: str, fingerprint: str) -> bool:
        """Whether the machine has the same under this path. Files take a moment to show up on other machines."""
        for _ in range(int(ANSWER_S / LOOK_S)):
            if await answer(self._agent.fingerprint.remote(path), START_S) == fingerprint:
                return True
            await asyncio.sleep(LOOK_S)
        return False

    async def close(self) -> None:
        """End the agent, and all that it runs, if it works for this bridge's owner.

        Also one that was not found yet: a bridge that comes up to end a fleet has looked for none.
        """
        agent, self._agent = self._agent, None
        try:
            agent = agent or await asyncio.to_thread(self._known_agent)
            if agent is not None and await answer(agent.close.remote(self._task.owner), ANSWER_S):
                await asyncio.to_thread(ray.kill, agent)
        except (RayError, TimeoutError) as error:  # its lease ends it
            print(f"{self.name}: {said(error)}", file=sys.stderr, flush=True)


def _reserved(resources: Mapping[str, float], on_gpus: bool) -> dict[str, float]:
    """What an agent takes of its node: all GPUs, or all CPUs. psserve shares them out itself."""
    if on_gpus and resources.get("GPU"):
        return {"num_gpus": resources["GPU"], "num_cpus": 0}
    return {"num_cpus": resources.get("CPU", 0)}


async def answer(reference: Any, within_s: float) -> Any:
    """What a call gave. Raises RayError, TimeoutError."""
    async with asyncio.timeout(within_s):  # wait_for may miss a cancellation
        return await asyncio.wrap_future(reference.future())


def said(error: BaseException) -> str:
    """The last line of an error that says something: Ray's are pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
