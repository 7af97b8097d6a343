"""Requests to modules, wherever each is served."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from psserve.bench.load.endpoints import base_url
from psserve.bench.load.options import LoadOptions
from psserve.bench.load.stream import RequestFailed, Streamed, stream
from psserve.contracts.tls import client_context

IDLE_S = 3.0
"""Unused connections are closed after this: SGLang closes them after 5 s, and a request would meet the closing."""
CONNECT_S = 30.0
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


@dataclass(frozen=True)
class Called:
    """What became of one request. `sent`: a moment of `time.perf_counter`, as those in `streamed`."""

    sent: float
    streamed: Streamed
    error: str | None


class Caller:
    """Sends greedy requests of a fixed number of output tokens."""

    def __init__(self, http: aiohttp.ClientSession, endpoints: Mapping[str, str], options: LoadOptions) -> None:
        self._http = http
        self._urls = {module: base_url(url) + PATHS[options.api] for module, url in endpoints.items()}

    def url_of(self, module: str) -> str:
        return self._urls[module]

    async def call(
        self,
        module: str,
        prompt: Mapping[str, Any],
        output_tokens: int,
        headers: Mapping[str, str],
        streamed: Streamed | None = None,
    ) -> Called:
        """One request; failures are in the result. `streamed` is filled as the answer comes, for who may be cancelled.

        `prompt` holds the body's fields for it.
        """
        body = {
            "model": module,
            **prompt,
            "max_tokens": output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        streamed = Streamed() if streamed is None else streamed
        sent = time.perf_counter()
        try:
            await stream(self._http, self._urls[module], body, headers, streamed)
        except RequestFailed as failure:
            return Called(sent, streamed, str(failure))
        return Called(sent, streamed, None)


def open_http(options: LoadOptions) -> aiohttp.ClientSession:
    """The connections of one run: as many as there are requests at a time. A context manager.

    Raises OSError if the certificate cannot be read.
    """
    trusted = True if options.certificate is None else client_context(options.certificate)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S, ssl=trusted),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=options.timeout_s),
        headers={
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}),
        },
    )
