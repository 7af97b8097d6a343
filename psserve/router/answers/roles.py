"""Whose words a chat's messages are, in the roles that the base's template renders: found out once, by trying it."""

from __future__ import annotations

import asyncio

from psserve.contracts.router_config import RouterConfig
from psserve.errors import RequestError
from psserve.router.body.checks import Body
from psserve.router.body.messages import Message, has_instructions_between, has_instructions_to_fit, with_roles
from psserve.router.workers.failures import LegFailure, Reason
from psserve.router.workers.upstream import Upstream
from psserve.router.workers.workers import WorkerTable

PATIENCE_S = 10.0
WITHOUT: list[Message] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Who are you?"},
]
WITH: list[Message] = [*WITHOUT[:3], {"role": "system", "content": "Be brief."}, *WITHOUT[3:]]
REFUSALS: frozenset[Reason] = frozenset({"refused", "unhandled"})
"""Failures by which a server says that the template cannot render the messages. Any other says nothing of it."""


class Roles:
    """The messages of chats as the base's template takes them."""

    def __init__(self, config: RouterConfig, table: WorkerTable, upstream: Upstream) -> None:
        self._config = config
        self._table = table
        self._upstream = upstream
        self._in_place: bool | None = None
        """Whether the template renders a system message between others; None until that was tried."""

    async def fit(self, body: Body) -> Body:
        """A checked body with its messages, if it has any, in roles that are rendered."""
        messages = body.get("messages", [])
        if not has_instructions_to_fit(messages):
            return body
        in_place = not has_instructions_between(messages) or await self._takes_system_between()
        return body | {"messages": with_roles(messages, in_place=in_place)}

    async def _takes_system_between(self) -> bool:
        if self._in_place is None:
            without, between = await self._tokens(WITHOUT), await self._tokens(WITH)
            if without is None or between is None:
                return False  # no server could tell now: at the front is right for every template
            self._in_place = between > without
        return self._in_place

    async def _tokens(self, messages: list[Message]) -> int | None:
        """How many tokens a prefill server makes of messages: 0 where it refuses them, None where it did not answer."""
        worker = self._table.ready_prefill()
        if worker is None:
            return None
        body = {"model": self._config.base.name, "messages": messages}
        try:
            async with asyncio.timeout(PATIENCE_S):
                return int((await self._upstream.ask(worker, "/v1/tokenize", body))["count"])
        except LegFailure as failure:
            return 0 if failure.reason in REFUSALS else None
        except (RequestError, TimeoutError, KeyError, TypeError, ValueError):
            return None
