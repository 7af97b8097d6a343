"""Which server gets a request: small policies behind one interface, for the router and for simulators.

Everything here is deterministic but `random`, and needs no event loop, no clock and no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable

from psserve.contracts.router_config import PolicyName
from psserve.router.policies.base import Choice, ChoiceOutcome, Policy, Prompt, Request, rotated
from psserve.router.policies.index import Holdings, PredictedHoldings
from psserve.router.policies.prefix import PrefixAware
from psserve.router.policies.simple import LeastLoaded, Random, RoundRobin, SessionAffinity

__all__ = [
    "Choice",
    "ChoiceOutcome",
    "Holdings",
    "Policy",
    "PolicyName",
    "Prompt",
    "Request",
    "make_policy",
    "rotated",
]


FLOOR_SHARE = 4
"""A server with less than this part (one in ...) of its KV pool spoken for is never called overloaded."""


def make_policy(name: PolicyName, kv_tokens: int, holdings: Holdings | None = None) -> Policy:
    """The policy of that name for servers with a KV pool of `kv_tokens` tokens each.

    `holdings` is what the prefix policy asks; left out, it predicts from the requests that it placed itself.
    """
    makers: dict[PolicyName, Callable[[], Policy]] = {
        "prefix": lambda: PrefixAware(holdings or PredictedHoldings(kv_tokens), kv_tokens),
        "session": lambda: SessionAffinity(kv_tokens // FLOOR_SHARE),
        "round-robin": RoundRobin,
        "least-loaded": LeastLoaded,
        "random": Random,
    }
    return makers[name]()
