"""Prefix-aware placement of prefill work: go where the prompt is cached, unless recomputing it elsewhere is cheaper."""

from __future__ import annotations

from collections.abc import Sequence

from psserve.router.policies.base import Choice, ChoiceOutcome, Policy, Request
from psserve.router.policies.index import Holdings

LEAD_WEIGHT = 0.25
"""What a token of lead costs. Without it all sessions that share a long system prompt stay on one idle server."""


class PrefixAware(Policy):
    """The server of least cost, all in tokens:

        cost = what it lacks of the prompt + what it has yet to compute for others + LEAD_WEIGHT * its lead

    The first two are the time until the prompt is computed. The lead is how much more work it was given lately than the
    mean: that copies what many prompts share to other servers before they have to queue for it. Of equals the one that
    holds most of the prompt, then the one that waits longest for its turn.
    """

    name = "prefix"

    def __init__(self, holdings: Holdings, kv_tokens: int) -> None:
        """`kv_tokens`: capacity of each server's cache."""
        super().__init__()
        self._holdings = holdings
        self._recent = RecentWork(kv_tokens)

    def _pick(self, request: Request, servers: Sequence[str]) -> Choice:
        prompt = request.prompt
        matched = {server: self._holdings.match(server, prompt) for server in servers}
        missing = {server: prompt.tokens - prompt.tokens_of(matched[server]) for server in servers}
        leads = self._recent.leads(servers)

        def cost(server: str) -> tuple[float, int, int]:
            tokens = missing[server] + self.outstanding(server) + LEAD_WEIGHT * leads[server]
            return tokens, missing[server], self.last_turn(server)

        best = min(servers, key=cost)
        outcome = _outcome(matched[best], max(matched.values()))
        return Choice(request, best, outcome, missing[best], matched[best])

    def choose(self, request: Request, servers: Sequence[str]) -> Choice:
        choice = super().choose(request, servers)
        self._recent.add(choice.server, choice.tokens)
        self._holdings.assigned(choice)
        return choice

    def finish(self, choice: Choice, *, served: bool) -> None:
        super().finish(choice, served=served)
        self._holdings.finished(choice, served)

    def forget(self, server: str) -> None:
        super().forget(server)
        self._recent.forget(server)
        self._holdings.forget(server)


def _outcome(matched: int, longest: int) -> ChoiceOutcome:
    if longest == 0:
        return "new"
    return "hit" if matched == longest else "balanced"


class RecentWork:
    """Tokens of work given to each server; all are halved whenever they add up to `window` tokens a server.

    So it needs no clock, and remembers about as much as the servers' caches hold, if `window` is one's capacity.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._work: dict[str, float] = {}

    def leads(self, servers: Sequence[str]) -> dict[str, float]:
        """Tokens that each of `servers` is ahead of their mean; 0 if it is behind.

        Servers that are new here begin with the mean of the others: they have nothing to catch up on.
        """
        known = [self._work[name] for name in servers if name in self._work]
        mean = sum(known) / len(known) if known else 0.0
        return {name: max(0.0, self._work.setdefault(name, mean) - mean) for name in servers}

    def add(self, server: str, tokens: int) -> None:
        """`server`, whose lead was asked for, is given `tokens` of work."""
        self._work[server] += tokens
        if sum(self._work.values()) > self._window * len(self._work):
            for name in self._work:
                self._work[name] /= 2

    def forget(self, server: str) -> None:
        self._work.pop(server, None)
