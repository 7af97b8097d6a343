"""Who asks: the client that a request's key belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from aiohttp import web

from psserve.contracts.api_keys import ApiKey, digest_of
from psserve.contracts.router_config import RouterConfig
from psserve.errors import RequestError

MINUTE_S = 60.0


class TokenBucket:
    """An amount a minute, all of which may be taken at once. It can be overdrawn, and is then empty for longer."""

    def __init__(self, per_minute: int) -> None:
        self.size = per_minute
        self._level = float(per_minute)
        self._when = monotonic()

    @property
    def level(self) -> float:
        """What can be taken now."""
        now = monotonic()
        self._level = min(self.size, self._level + (now - self._when) * self.size / MINUTE_S)
        self._when = now
        return self._level

    def take(self, amount: int) -> None:
        self._level = self.level - amount

    def seconds_until(self, level: float) -> float:
        return max(0.0, (level - self.level) * MINUTE_S / self.size)


class Rates:
    """What the holder of one key may use in one router."""

    def __init__(self, key: ApiKey) -> None:
        self._buckets = {
            what: TokenBucket(limit)
            for what, limit in (("requests", key.requests_per_minute), ("tokens", key.tokens_per_minute))
            if limit is not None
        }
        self._concurrent = key.concurrent_requests
        self._running = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """One request runs meanwhile. Raises RequestError (429) if the key has had its share."""
        for what, bucket in self._buckets.items():
            if bucket.level < 1:
                message = f"this key may use {bucket.size} {what} a minute"
                raise _too_much(message, math.ceil(bucket.seconds_until(1)))
        if self._concurrent is not None and self._running >= self._concurrent:
            raise _too_much(f"this key may have {self._concurrent} requests at a time", 1)
        if "requests" in self._buckets:
            self._buckets["requests"].take(1)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def spend(self, tokens: int) -> None:
        """Take the tokens of a request, at its end: they are not known before."""
        if "tokens" in self._buckets:
            self._buckets["tokens"].take(tokens)

    def headers(self) -> dict[str, str]:
        """OpenAI's headers about what is left."""
        headers = {}
        for what, bucket in self._buckets.items():
            headers[f"x-ratelimit-limit-{what}"] = str(bucket.size)
            headers[f"x-ratelimit-remaining-{what}"] = str(max(0, math.floor(bucket.level)))
            headers[f"x-ratelimit-reset-{what}"] = f"{math.ceil(bucket.seconds_until(bucket.size))}s"
        return headers


def _too_much(message: str, wait_s: int) -> RequestError:
    return RequestError(429, message, type="rate_limit_error", code="rate_limit_exceeded", retry_after=max(1, wait_s))


@dataclass(frozen=True, eq=False)
class Client:
    """The holder of one key."""

    key: ApiKey
    rates: Rates

    def may_use(self, module: str) -> bool:
        """Whether it may use the module of this name (no alias)."""
        return self.key.modules is None or module in self.key.modules

    def require(self, module: str) -> None:
        """Raises RequestError (403) if it may not use `module`."""
        if not self.may_use(module):
            message = f"this key may not use the model {module!r}"
            raise RequestError(403, message, param="model", code="model_not_allowed")


def _unlimited(name: str) -> Client:
    key = ApiKey(name=name, digest="0" * 64, admin=True)
    return Client(key, Rates(key))


ANYONE = _unlimited("anyone")
"""Where no key is asked for."""
CLIENT = web.RequestKey("client", Client)


class Clients:
    """All who have keys."""

    def __init__(self, config: RouterConfig) -> None:
        self._by_digest: dict[str, Client] = {}
        self.reconfigure(config)

    def reconfigure(self, config: RouterConfig) -> None:
        """Accept the keys of `config` from now on. Who keeps its entry keeps what it has used of its limits."""
        before = {client.key: client for client in self._by_digest.values()}
        self._keyless = not config.needs_key
        clients = [before.get(key) or Client(key, Rates(key)) for key in config.keys or ()]
        self._by_digest = {client.key.digest: client for client in clients}
        for name, secret in (("api-key", config.api_key), ("operator", config.operator_key)):
            if secret is not None:
                self._by_digest[digest_of(secret)] = _unlimited(name)

    def of(self, headers: Mapping[str, str]) -> Client:
        """The client that sent these headers. Raises RequestError (401)."""
        if self._keyless:
            return ANYONE
        # A look-up by digest takes a time that says something of digests alone, which nobody can choose.
        client = self._by_digest.get(digest_of(_key_in(headers)))
        if client is None:
            raise RequestError(401, "a valid key is needed: Authorization: Bearer KEY", code="invalid_api_key")
        return client


def _key_in(headers: Mapping[str, str]) -> str:
    """OpenAI's clients send `Authorization: Bearer`, Anthropic's `x-api-key`."""
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
