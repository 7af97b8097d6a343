"""The servers under load, and whether they are there and serve what is wanted."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
import orjson

from psserve.bench.load.stream import refusal
from psserve.errors import BenchError

CONNECT_S = 10.0
ANSWER_S = 30.0


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
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
    try:
        async with http.get(f"{url}/v1/models", timeout=timeout) as response:
            payload = await response.read()
            if response.status == 404:
                return None
            if response.status in (401, 403):
                raise BenchError(f"{url} refuses: {refusal(response.status, payload)}: give its key by --api-key")
            if response.status != 200:
                raise BenchError(f"{url}/v1/models: {refusal(response.status, payload)}")
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
