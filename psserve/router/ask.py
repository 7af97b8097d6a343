"""A question of the router's own to the base model, through the fleet as any request goes."""

from __future__ import annotations

from typing import Any

from psserve.router.answer import check_answer
from psserve.router.body import parse_generation
from psserve.router.checks import Body
from psserve.router.config import RouterConfig
from psserve.router.dispatch import Dispatcher
from psserve.router.workers import WorkerTable


class BaseModel:
    """The base, where it is served as a module (`--serve-base`)."""

    def __init__(self, config: RouterConfig, table: WorkerTable, dispatcher: Dispatcher) -> None:
        self._config = config
        self._table = table
        self._dispatcher = dispatcher

    async def ask(self, body: Body) -> dict[str, Any]:
        """The answer to the chat completion `body`. Raises RequestError."""
        body = body | {"model": self._config.base.name}
        generation = parse_generation("chat", body, self._config, self._table, {})
        with self._table.hold(generation.module):
            async with self._dispatcher.open(generation.module, generation.sequences[0]) as legs:
                return check_answer(legs, await legs.read())
