"""Prefix-aware placement of prefill work: go where the prompt is cached, unless recomputing it elsewhere is cheaper."""

from __future__ import annotations

from collections.abc import Sequence

from psserve.router.policies.base import Choice, Outcome, Policy, Request
from psserve.router.policies.index import Holdings


class PrefixAware(Policy):
    """The server that will be done first: least (tokens of the prompt it lacks + tokens it has yet to compute).

    Of equals the one that holds most of the prompt, then the one that waits longest for its turn.
    """

    name = "prefix"

    def __init__(self, holdings: Holdings) -> None:
        super().__init__()
        self._holdings = holdings

    def _pick(self, request: Request, servers: Sequence[str]) -> Choice:
        prompt = request.prompt
        matched = {server: self._holdings.match(server, prompt) for server in servers}
        missing = {server: prompt.tokens - prompt.tokens_of(matched[server]) for server in servers}

        def cost(server: str) -> tuple[int, int, int]:
            return missing[server] + self.outstanding(server), missing[server], self.last_turn(server)

        best = min(servers, key=cost)
        outcome = _outcome(matched[best], max(matched.values()))
        return Choice(request, best, outcome, missing[best], matched[best])

    def choose(self, request: Request, servers: Sequence[str]) -> Choice:
        choice = super().choose(request, servers)
        self._holdings.assigned(choice)
        return choice

    def finish(self, choice: Choice, *, served: bool) -> None:
        super().finish(choice, served=served)
        self._holdings.finished(choice, served)

    def forget(self, server: str) -> None:
        super().forget(server)
        self._holdings.forget(server)


def _outcome(matched: int, longest: int) -> Outcome:
    if longest == 0:
        return "new"
    return "hit" if matched == longest else "balanced"
