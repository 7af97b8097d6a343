"""A small HTTP client for a running fleet's router: its workers, its models, a streamed chat."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from psserve.errors import FleetError


class WorkerView(BaseModel):
    """One server as the router sees it. Fields that a newer router adds are passed over."""

    name: str
    state: str
    running: int = 0
    error: str | None = None


class _Workers(BaseModel):
    workers: list[WorkerView]


class RouterClient:
    """Blocking calls to one router. Proxies of the environment are not used."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def workers(self, timeout_s: float = 2.0) -> dict[str, WorkerView]:
        """The servers by name.

        Raises:
            FleetError: the router does not answer, or not in its own form.
        """
        body = self._get("/workers", timeout_s)
        try:
            return {worker.name: worker for worker in _Workers.model_validate_json(body).workers}
        except ValidationError as error:
            raise FleetError(f"{self.url}/workers answered in a form that psserve does not know") from error

    def models(self, timeout_s: float = 5.0) -> list[str]:
        """Ids that `/v1/models` lists.

        Raises:
            FleetError: the router does not answer or refuses.
        """
        try:
            return [str(entry["id"]) for entry in json.loads(self._get("/v1/models", timeout_s))["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise FleetError(f"{self.url}/v1/models answered in a form that psserve does not know") from error

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int | None = None,
        timeout_s: float = 600.0,
    ) -> Iterator[str]:
        """Yield an answer's text as it comes. Closing the iterator cancels the request.

        Raises:
            FleetError: the router refuses, fails, or breaks off.
        """
        body: dict[str, Any] = {"model": model, "messages": list(messages), "stream": True}
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **self._headers},
        )
        with self._open(request, timeout_s) as answer:
            try:
                yield from _deltas(answer)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise FleetError(f"the answer of {self.url} broke off: {error or type(error).__name__}") from error

    def _get(self, path: str, timeout_s: float) -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", headers=self._headers)
        with self._open(request, timeout_s) as answer:
            try:
                return answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise FleetError(f"{self.url}{path} broke off: {error}") from error

    def _open(self, request: urllib.request.Request, timeout_s: float) -> http.client.HTTPResponse:
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=timeout_s)
            return answer
        except urllib.error.HTTPError as error:
            with error:
                raise FleetError(_refusal(error)) from error
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise FleetError(f"no answer from {self.url}: {reason}") from error


def _deltas(lines: http.client.HTTPResponse) -> Iterator[str]:
    """Text of a chat stream's events, to its [DONE]."""
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise FleetError(str(event["error"].get("message", event["error"])))
        for choice in event.get("choices", ()):
            if text := choice.get("delta", {}).get("content"):
                yield text
    raise FleetError("the answer broke off before its end")


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return f"{error.url} answered {error.code} {error.reason}"
