"""Who asks: the client that a request's key belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from psserve.api_keys import ApiKey, digest_of
from psserve.errors import RequestError
from psserve.router.access.rates import Rates
from psserve.router.config import RouterConfig


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
