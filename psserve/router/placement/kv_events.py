"""Following the KV events of prefill workers (SGLang's `--kv-events-config`, ZeroMQ).

A worker publishes numbered batches of events and keeps the last 10,000 for who asks. Whenever a number is not the next
one (batches were lost, the worker restarted, we just came), all that it keeps is asked for to build the tree anew; if
that does not begin with number 0, the tree stays incomplete and the policy predicts instead.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from psserve.contracts.router_config import WorkerConfig
from psserve.router.policies.events import EventTree, FollowedHoldings
from psserve.router.workers.workers import WorkerTable

REPLAY_TIMEOUT_S = 5.0
SILENCE_S = 1.0  # after so long without a batch, ask whether one was missed
END = (-1).to_bytes(8, "big", signed=True)

EventBatch = list[Any]
"""What is published: time (seconds), events, rank."""

log = logging.getLogger("psserve.router")


class Follower:
    """Keeps the tree of one worker."""

    def __init__(self, context: zmq.asyncio.Context, worker: WorkerConfig, holdings: FollowedHoldings) -> None:
        self._context = context
        assert worker.kv_events is not None
        self._name, self._addresses = worker.name, worker.kv_events
        self._holdings = holdings
        self._tree: EventTree | None = None
        self._next = 0
        self._time = 0.0
        """When the last applied batch was made, by the worker's clock."""

    async def run(self) -> None:
        """Follow the worker until cancelled. Whatever happens here, the policy can go on predicting."""
        try:
            await self._follow()
        except Exception:  # events are another program's: none of them may end the router
            log.exception("worker=%s kv_events=failed; its cache is predicted from here on", self._name)

    async def _follow(self) -> None:
        socket = self._context.socket(zmq.SUB)
        socket.set_hwm(0)
        socket.subscribe(b"")
        try:
            socket.connect(self._addresses.endpoint)
            while True:
                if not self._is_current():
                    await self._begin_anew()
                elif await socket.poll(SILENCE_S * 1000):
                    _, number, payload = await socket.recv_multipart()
                    await self._take(int.from_bytes(number, "big"), msgspec.msgpack.decode(payload))
                else:
                    await self._catch_up()
        finally:
            socket.close(linger=0)
            self._holdings.forget(self._name)

    def _is_current(self) -> bool:
        return self._tree is not None and self._holdings.is_current(self._name, self._tree)

    async def _take(self, number: int, batch: EventBatch) -> None:
        """Apply a batch that was published just now. An old one was in the past that we asked for."""
        if number == self._next:
            self._apply(number, batch)
        elif number > self._next or batch[0] > self._time:
            await self._begin_anew()

    async def _catch_up(self) -> None:
        """Ask for what was published before the worker had heard of our subscription: it never came.

        Asked from the last batch on that we know: if the worker does not have that one, it is not the same process.
        """
        known = (self._next - 1, self._time)
        past = await self._ask(max(0, self._next - 1))
        if past is None:
            return
        if self._next and [(number, batch[0]) for number, batch in past[:1]] != [known]:
            await self._begin_anew()
            return
        for number, batch in past:
            if number >= self._next:
                self._apply(number, batch)

    async def _begin_anew(self) -> None:
        """Build the tree from all that the worker keeps; none yet if it does not answer."""
        self._tree = self._holdings.renew(self._name)
        self._next, self._time = 0, 0.0
        past = await self._ask(0)
        if past is None:
            self._tree = None
            return
        for number, batch in past:
            self._apply(number, batch)
        self._tree.is_complete |= not past or past[0][0] == 0
        state = "complete" if self._tree.is_complete else "incomplete"
        log.info("worker=%s kv_events=%s batches=%d pages=%d", self._name, state, self._next, len(self._tree))

    async def _ask(self, start: int) -> list[tuple[int, EventBatch]] | None:
        """What the worker keeps from number `start` on; None when it does not answer (not up, or hung)."""
        socket = self._context.socket(zmq.DEALER)
        past: list[tuple[int, EventBatch]] = []
        try:
            socket.connect(self._addresses.replay_endpoint)
            async with asyncio.timeout(REPLAY_TIMEOUT_S):
                await socket.send_multipart([b"", start.to_bytes(8, "big")])
                while True:
                    *_, number, payload = await socket.recv_multipart()  # SGLang since 0.5.20 sends a topic, too
                    if number == END:
                        return past
                    past.append((int.from_bytes(number, "big"), msgspec.msgpack.decode(payload)))
        except TimeoutError:
            return None
        finally:
            socket.close(linger=0)

    def _apply(self, number: int, batch: EventBatch) -> None:
        assert self._tree is not None
        self._time, events = batch[0], batch[1]
        for event in events:
            self._tree.apply(event)
        self._next = number + 1
        self._holdings.told(self._name)


class Followers:
    """A follower for each prefill worker that publishes events, as workers come and go."""

    def __init__(self, table: WorkerTable, holdings: FollowedHoldings) -> None:
        self._table, self._holdings = table, holdings
        self._context = zmq.asyncio.Context()
        self._tasks: dict[WorkerConfig, asyncio.Task[None]] = {}

    def reconfigure(self) -> None:
        """Follow the table's workers, and no others."""
        wanted = {worker.config for worker in self._table.prefills if worker.config.kv_events is not None}
        for gone in self._tasks.keys() - wanted:
            self._tasks.pop(gone).cancel()
        for config in wanted - self._tasks.keys():
            follower = Follower(self._context, config, self._holdings)
            self._tasks[config] = asyncio.create_task(follower.run())

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._context.destroy(linger=0)
