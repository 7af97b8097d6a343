"""A small HTTP client for a running fleet's router: its workers, its models, a streamed chat."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from psserve.errors import FleetError
from psserve.fleet.chat_stream import Event, events
from psserve.fleet.http import HttpClient


class WorkerView(BaseModel):
    """One server as the router sees it. Fields that a newer router adds are passed over."""

    name: str
    state: str
    running: int = 0
    held: int = 0
    """Requests in flight that may still need it."""
    error: str | None = None


class RouterView(BaseModel):
    """What `/workers` says."""

    workers: list[WorkerView]
    serial: int = 0
    """Of the configuration that the router follows."""

    @property
    def by_name(self) -> dict[str, WorkerView]:
        return {worker.name: worker for worker in self.workers}


class RouterClient(HttpClient):
    """Blocking calls to one router."""

    def workers(self, timeout_s: float = 2.0) -> dict[str, WorkerView]:
        """The servers by name. Raises as `view` does."""
        return self.view(timeout_s).by_name

    def view(self, timeout_s: float = 2.0) -> RouterView:
        """What the router sees.

        Raises:
            FleetError: the router does not answer, or not in its own form.
        """
        body = self.get("/workers", timeout_s)
        try:
            return RouterView.model_validate_json(body)
        except ValidationError as error:
            raise FleetError(f"{self.url}/workers answered in a form that psserve does not know") from error

    def models(self, timeout_s: float = 5.0) -> list[str]:
        """Ids that `/v1/models` lists.

        Raises:
            FleetError: the router does not answer or refuses.
        """
        try:
            return [str(entry["id"]) for entry in json.loads(self.get("/v1/models", timeout_s))["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise FleetError(f"{self.url}/v1/models answered in a form that psserve does not know") from error

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int | None = None,
        timeout_s: float = 600.0,
    ) -> Generator[Event, None, None]:
        """Yield an answer as it comes. Closing the iterator cancels the request.

        Raises:
            FleetError: the router refuses, fails, or breaks off.
        """
        body: dict[str, Any] = {"model": model, "messages": list(messages), "stream": True}
        body["stream_options"] = {"include_usage": True}
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        with self.post("/v1/chat/completions", body, timeout_s) as answer:
            try:
                yield from events(answer)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise FleetError(f"the answer of {self.url} broke off: {error or type(error).__name__}") from error
