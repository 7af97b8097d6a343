"""Which module a session is with: it keeps it unless the task clearly changes."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from psserve.router.task_routing.classifier import Decision

MAX_SESSIONS = 10_000
MARGIN = 0.2
"""How much likelier another module must be than the session's own. Keeps "and now with 7?" from going elsewhere."""


class Sessions:
    """The modules of the sessions used last, by a hash of their names: memory is bounded, whatever clients send."""

    def __init__(self, limit: int = MAX_SESSIONS) -> None:
        self._limit = limit
        self._modules: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._modules)

    def get(self, session: str | None) -> str | None:
        """The session's module, if it has one."""
        return None if session is None else self._modules.get(_key(session))

    def put(self, session: str | None, module: str) -> None:
        """The session is with `module` now. The one unused for longest is forgotten when there are too many."""
        if session is None:
            return
        key = _key(session)
        self._modules[key] = module
        self._modules.move_to_end(key)
        if len(self._modules) > self._limit:
            self._modules.popitem(last=False)


def stays(own: str, decision: Decision, threshold: float) -> bool:
    """Whether a session with the module `own` keeps it: another module must be likely, and clearly likelier."""
    clear = decision.confidence >= threshold
    return not clear or decision.confidence - decision.scores.get(own, 0.0) < MARGIN


def _key(session: str) -> bytes:
    return blake2b(session.encode(errors="surrogatepass"), digest_size=16).digest()
