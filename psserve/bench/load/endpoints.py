"""The servers under load: whether they serve what is wanted and can read what sessions ask, and calls to them."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from psserve.bench.load.options import LoadOptions
from psserve.bench.load.stream import RequestFailed, Streamed, refusal_text, stream
from psserve.bench.session import Session
from psserve.contracts.tls import client_context
from psserve.errors import BenchError

IDLE_S = 3.0
"""Unused connections are closed after this: SGLang closes them after 5 s, and a request would meet the closing."""
CONNECT_S = 30.0
LIST_CONNECT_S = 10.0
LIST_ANSWER_S = 30.0
"""The list of models comes sooner than an answer, or not at all."""
_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


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


def base_url(url: str) -> str:
    """A server's URL as it is used here, without the `/v1` that clients of OpenAI's API are given."""
    return url.rstrip("/").removesuffix("/v1")


async def check_endpoints(http: aiohttp.ClientSession, endpoints: Mapping[str, str], modules: Iterable[str]) -> None:
    """Ask every server for its models.

    Raises BenchError for a module without a URL, a server that does not answer or refuses, and a model not served.
    """
    wanted: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        if module not in endpoints:
            raise BenchError(f"no URL for module {module}; there are some for: {', '.join(endpoints) or 'none'}")
        wanted[base_url(endpoints[module])].append(module)
    for url, names in wanted.items():
        served = await served_models(http, url)
        for name in names:
            if served is not None and name not in served:
                raise BenchError(f"{url} does not serve {name}; it has: {', '.join(sorted(served)) or 'no model'}")


async def served_models(http: aiohttp.ClientSession, url: str) -> dict[str, Any] | None:
    """Model id -> what `/v1/models` says of it; None where a server has no such list. Raises BenchError."""
    timeout = aiohttp.ClientTimeout(total=LIST_ANSWER_S, sock_connect=LIST_CONNECT_S)
    try:
        async with http.get(f"{url}/v1/models", timeout=timeout) as response:
            payload = await response.read()
            if response.status == 404:
                return None
            if response.status in (401, 403):
                raise BenchError(f"{url} refuses: {refusal_text(response.status, payload)}: give its key by --api-key")
            if response.status != 200:
                raise BenchError(f"{url}/v1/models: {refusal_text(response.status, payload)}")
            return {str(entry["id"]): entry for entry in orjson.loads(payload)["data"]}
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        if isinstance(error, orjson.JSONDecodeError):
            raise BenchError(f"{url}/v1/models answered in a form that is not OpenAI's") from error
        raise BenchError(f"{url} cannot be reached: {_reason(error)}") from error
    except (KeyError, TypeError) as error:
        raise BenchError(f"{url}/v1/models answered in a form that is not OpenAI's") from error


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@dataclass(frozen=True)
class Called:
    """What became of one request. `sent`: a moment of `time.perf_counter`, as those in `streamed`."""

    sent: float
    streamed: Streamed
    error: str | None


class Sender:
    """Sends greedy requests of a fixed number of output tokens."""

    def __init__(self, http: aiohttp.ClientSession, endpoints: Mapping[str, str], options: LoadOptions) -> None:
        self._http = http
        self._urls = {module: base_url(url) + _PATHS[options.api] for module, url in endpoints.items()}

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


async def context_limits(http: aiohttp.ClientSession, endpoints: Mapping[str, str]) -> dict[str, int]:
    """Module -> most tokens of prompt and answer together, of the modules whose servers say it. Raises BenchError."""
    limits = {}
    for url in {base_url(url) for url in endpoints.values()}:
        served = await served_models(http, url) or {}
        for module, of in endpoints.items():
            limit = served.get(module, {}).get("max_model_len") if base_url(of) == url else None
            if isinstance(limit, int):
                limits[module] = limit
    return limits


def too_long(sessions: Sequence[Session], limits: Mapping[str, int]) -> str | None:
    """One line about sessions that some model cannot read to their end; None if there are none."""
    long = [session for session in sessions if not _fits(session, limits)]
    if not long:
        return None
    most = max(map(_longest, long))
    smallest = min(limits.values())
    return (
        f"{len(long)} of {len(sessions)} sessions are longer (up to {most} tokens) than a model's context"
        f" ({smallest} tokens), and will fail: use shorter ones, or --scale"
    )


def _fits(session: Session, limits: Mapping[str, int]) -> bool:
    context = session.system_tokens
    for step in session.steps:
        context += step.new_tokens
        if any(
            context + call.output_tokens > limits.get(call.module, context + call.output_tokens) for call in step.calls
        ):
            return False
        context += step.calls[0].output_tokens
    return True


def _longest(session: Session) -> int:
    return session.system_tokens + sum(step.new_tokens + step.calls[0].output_tokens for step in session.steps)
