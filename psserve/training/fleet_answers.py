"""Greedy answers to the prompts of conversations, from a running fleet or any other OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any

import aiohttp

from psserve.contracts.router_config import VERSION_HEADER
from psserve.contracts.tls import client_context
from psserve.errors import TrainingError
from psserve.training.conversation import Conversation
from psserve.training.scorers import message_text

TIMEOUT_S = 600.0


@dataclass(frozen=True)
class FleetAnswerer:
    """`model` at `url` (without /v1), `concurrency` requests at a time."""

    url: str
    model: str
    api_key: str | None = None
    concurrency: int = 8
    certificate: Path | None = None
    """That the server at an https URL must show; None: one that the system trusts."""
    versions: set[str | None] = field(default_factory=set)
    """Which versions of the module have answered so far; None for an answer that did not say, as of other servers."""

    def answer(self, items: Sequence[Conversation], max_tokens: int) -> list[str]:
        """See Answerer. TrainingError as soon as one request fails: a score over the rest would mean nothing; or if the
        certificate cannot be read."""
        return asyncio.run(self._answer(items, max_tokens))

    async def _answer(self, items: Sequence[Conversation], max_tokens: int) -> list[str]:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        connector = aiohttp.TCPConnector(limit=self.concurrency, ssl=self._trusted())
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._ask(session, item, max_tokens)) for item in items]
            except* TrainingError as failed:
                first = failed.exceptions[0]
            else:
                return [task.result() for task in tasks]
        raise first

    async def _post(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> aiohttp.ClientResponse:
        """The answer of a server with the certificate as we know it, or as its file has it now: it may be renewed."""
        url = f"{self.url.rstrip('/')}/v1/chat/completions"
        try:
            return await session.post(url, json=body)
        except aiohttp.ClientConnectorCertificateError:
            if self.certificate is None:
                raise
            return await session.post(url, json=body, ssl=self._trusted())

    def _trusted(self) -> SSLContext | bool:
        if self.certificate is None:
            return True
        try:
            return client_context(self.certificate)
        except OSError as error:
            raise TrainingError(f"the certificate {self.certificate} cannot be read: {error.strerror}") from error

    async def _ask(self, session: aiohttp.ClientSession, item: Conversation, max_tokens: int) -> str:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": openai_messages(item),
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        if item.tools:
            body["tools"] = item.tools
        try:
            async with await self._post(session, body) as response:
                document = await response.json(content_type=None)
                if response.status != 200:
                    raise TrainingError(f"{item.where}: {self.url}: {error_message(response.status, document)}")
                self.versions.add(response.headers.get(VERSION_HEADER))
                return message_text(document["choices"][0]["message"])
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TrainingError(f"{item.where}: no answer from {self.url}: {error or type(error).__name__}") from None
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise TrainingError(f"{item.where}: {self.url} did not answer in OpenAI's form") from error


def error_message(status: int, document: Any) -> str:
    """What an error body says."""
    error = document.get("error") if isinstance(document, dict) else None
    return str(error["message"]) if isinstance(error, dict) and "message" in error else f"status {status}"


def openai_messages(item: Conversation) -> list[dict[str, Any]]:
    """The prompt as OpenAI's API wants it: arguments as text, and ids that tie results to calls."""
    messages = []
    unanswered: deque[str] = deque()
    for turn, message in enumerate(item.prompt):
        sent = dict(message)
        if calls := message.get("tool_calls"):
            sent["tool_calls"] = [openai_call(call, f"call_{turn}_{index}") for index, call in enumerate(calls)]
            unanswered = deque(call["id"] for call in sent["tool_calls"])
        if message["role"] == "tool":
            oldest = unanswered.popleft() if unanswered else f"call_{turn}"
            sent.setdefault("tool_call_id", oldest)
        messages.append(sent)
    return messages


def openai_call(call: dict[str, Any], default_id: str) -> dict[str, Any]:
    """One call with an id and its arguments as text."""
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {"id": default_id, **call, "function": {**function, "arguments": arguments}}
