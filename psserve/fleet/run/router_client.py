"""A small HTTP client for a running fleet's router: its workers, its models, a streamed chat."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from psserve.contracts.servers import RouterView, WorkerView
from psserve.contracts.sse import EventReader
from psserve.contracts.tls import client_context
from psserve.errors import FleetError, NoAnswer

BUSY_S = 10.0
"""How long a router that has much to do may take to describe its servers."""


@dataclass(frozen=True)
class ChatUsage:
    """The tokens of one request and its answer."""

    prompt_tokens: int
    cached_tokens: int
    """Of the prompt's, those whose KV the base had."""
    completion_tokens: int


@dataclass(frozen=True)
class ChatEvent:
    """A piece of text, or one of the facts that come at the end."""

    text: str = ""
    finish_reason: str | None = None
    usage: ChatUsage | None = None
    thought: str = ""
    """A piece of what comes before the answer."""


# --- any server


class HttpClient:
    """Calls to one server. Proxies of the environment are not used."""

    def __init__(self, url: str, api_key: str | None = None, certificate: Path | None = None) -> None:
        """`certificate`: the one that the server at an https URL must show; None: one that the system trusts."""
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._certificate = certificate
        self._opener = _opener(certificate)

    def get(self, path: str, timeout_s: float) -> bytes:
        """The body of a successful answer.

        Raises:
            NoAnswer: none in time (of silence), or one that broke off.
            FleetError: a refusal.
        """
        request = urllib.request.Request(f"{self.url}{path}", headers=self._headers)
        with self._open(request, timeout_s) as answer:
            try:
                return answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise NoAnswer(f"{self.url}{path} broke off: {error}") from error

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> http.client.HTTPResponse:
        """The answer to a JSON body, not yet read. Closing it early ends the request. Raises FleetError as `get`."""
        headers = {"Content-Type": "application/json", **self._headers}
        request = urllib.request.Request(f"{self.url}{path}", data=json.dumps(body).encode(), headers=headers)
        return self._open(request, timeout_s)

    def _open(self, request: urllib.request.Request, timeout_s: float) -> http.client.HTTPResponse:
        try:
            return self._open_trusting(request, timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                raise FleetError(_refusal(error)) from error
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise NoAnswer(f"no answer from {self.url}: {reason}") from error

    def _open_trusting(self, request: urllib.request.Request, timeout_s: float) -> http.client.HTTPResponse:
        """The answer of a server with the certificate as we know it, or as its file has it now: it may be renewed."""
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=timeout_s)
        except urllib.error.URLError as error:
            if self._certificate is None or not isinstance(error.reason, ssl.SSLCertVerificationError):
                raise
            self._opener = _opener(self._certificate)
            answer = self._opener.open(request, timeout=timeout_s)
        return answer


def _opener(certificate: Path | None) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), *_trusting(certificate))


def _trusting(certificate: Path | None) -> list[urllib.request.HTTPSHandler]:
    if certificate is None:
        return []
    try:
        return [urllib.request.HTTPSHandler(context=client_context(certificate))]
    except OSError as error:
        raise FleetError(f"the router's certificate {certificate} cannot be read: {error.strerror}") from error


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        said = json.loads(error.read())
        return str(said["error_message"] if "error_message" in said else said["error"]["message"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return f"{error.url} answered {error.code} {error.reason}"


# --- the router


class RouterClient(HttpClient):
    """Blocking calls to one router."""

    def workers(self, timeout_s: float = BUSY_S) -> dict[str, WorkerView]:
        """The servers by name. Raises as `view` does."""
        return self.view(timeout_s).by_name

    def view(self, timeout_s: float = BUSY_S) -> RouterView:
        """The servers as the router sees them.

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
    ) -> Generator[ChatEvent, None, None]:
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
                yield from chat_events(answer)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise FleetError(f"the answer of {self.url} broke off: {error or type(error).__name__}") from error


def chat_events(pieces: Iterable[bytes]) -> Iterator[ChatEvent]:
    """The events of a streamed answer, to its [DONE].

    Raises:
        FleetError: the server reports an error, or the stream ends early.
        ValueError: an event is no JSON object.
    """
    reader = EventReader()
    for piece in pieces:
        for document in reader.feed(piece):
            if "error" in document:
                raise FleetError(str(document["error"].get("message", document["error"])))
            for choice in document.get("choices", ()):
                delta, reason = choice.get("delta", {}), choice.get("finish_reason")
                text, thought = delta.get("content") or "", delta.get("reasoning_content") or ""
                if text or thought or reason:
                    yield ChatEvent(text, reason, thought=thought)
            if document.get("usage"):
                yield ChatEvent(usage=_usage(document["usage"]))
        if reader.ended:
            return
    raise FleetError("the answer broke off before its end")


def _usage(found: dict[str, Any]) -> ChatUsage:
    details = found.get("prompt_tokens_details") or {}
    return ChatUsage(
        prompt_tokens=found.get("prompt_tokens", 0),
        cached_tokens=details.get("cached_tokens") or 0,
        completion_tokens=found.get("completion_tokens", 0),
    )
