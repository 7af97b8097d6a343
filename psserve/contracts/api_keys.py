"""Keys of clients: how one is made, and what is kept of it.

A slow password hash would be wrong here. Keys are 32 random bytes, which nobody can guess whatever the hash, and the
router hashes one for every request. What is kept must not give the key away; BLAKE2b sees to that.
"""

from __future__ import annotations

import hashlib
import secrets

from pydantic import BaseModel, ConfigDict, Field

from psserve.contracts.tables import Count

PREFIX = "psk_"


class ApiKey(BaseModel):
    """A client's key as it is kept: an entry of a key file, and of the router's configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(pattern="^[a-z0-9][a-z0-9._-]{0,63}$")
    """Who has it. Shown in logs, never the key."""
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    """`digest_of` the key."""
    created: int = 0
    """Unix seconds."""
    admin: bool = False
    """May also ask for what concerns the fleet: its servers, their load, where its files are."""
    modules: tuple[str, ...] | None = None
    """Names of the modules that it may use. None: all."""
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    """Of prompts and answers together. The request that goes beyond it is served, the next ones wait."""
    concurrent_requests: Count | None = None


def new_key() -> str:
    """A key for one client."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str | bytes) -> str:
    """The part of a key that may be kept: its hash, in hexadecimal."""
    data = key.encode(errors="surrogateescape") if isinstance(key, str) else key
    return hashlib.blake2b(data, digest_size=32, person=b"psserve-key").hexdigest()
