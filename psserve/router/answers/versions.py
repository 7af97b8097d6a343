"""Which version of a module answers: the one that is listed, or for some of the sessions the one on trial."""

from __future__ import annotations

from hashlib import blake2b

from psserve.contracts.router_config import ModuleConfig
from psserve.router.body.checks import Body
from psserve.router.placement.prompt_key import opening_of
from psserve.router.workers.workers import WorkerTable

_ALL = 2**64


def version_for(module: ModuleConfig, session: str | None, prompt: Body, table: WorkerTable) -> ModuleConfig:
    """`module`, or its version on trial if the session is one of those that it answers.

    `session` is the client's name for it; without one the opening of the prefill body `prompt` tells sessions apart.
    """
    if module.trial is None or not module.trial.share:
        return module
    tried = table.tried(module)
    if tried is None or not is_chosen(module, opening_of(prompt) if session is None else session):
        return module
    return tried


def is_chosen(module: ModuleConfig, session: str) -> bool:
    """Whether a session belongs to the share of the version on trial: always the same, in every process of a router."""
    assert module.trial is not None
    key = f"{module.name}@{module.trial.zoo_version}\n{session}".encode(errors="surrogatepass")
    return int.from_bytes(blake2b(key, digest_size=8).digest()) < module.trial.share / 100 * _ALL
