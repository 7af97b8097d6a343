"""One SGLang server of a running system."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Server:
    """Where it is, and what it does."""

    name: str
    url: str
    prefills: bool
    """Whether it reads prompts: a prefill server, or an ordinary one. If not, it is a decode server."""
