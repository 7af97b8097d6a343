"""Servers that can do the same, and the router's policy that picks among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psserve.bench.simulator.job import Job
from psserve.bench.simulator.server import Server
from psserve.router.policies import Choice, Policy, Prompt, Request


class Group:
    """`block_tokens`: of the blocks that jobs name."""

    def __init__(self, servers: Mapping[str, Server], policy: Policy, block_tokens: int) -> None:
        self._servers = servers
        self._names = list(servers)
        self._policy = policy
        self._block_tokens = block_tokens

    def pick(self, job: Job) -> tuple[Server, Choice | None]:
        """A server for the job. Give the choice back when the server is done with it; one server needs no choice."""
        if len(self._names) == 1:
            return self._servers[self._names[0]], None
        prompt = Prompt(job.blocks, job.read_tokens, self._block_tokens)
        choice = self._policy.choose(Request(prompt, job.session, job.output_tokens), self._names)
        return self._servers[choice.server], choice

    def finish(self, choice: Choice | None) -> None:
        if choice is not None:
            self._policy.finish(choice, served=True)


def dealt(servers: Sequence[str], modules: Sequence[str]) -> dict[str, list[str]]:
    """Module -> its servers: one after another, so that no module has two more than any other."""
    return {module: list(servers[index :: len(modules)]) for index, module in enumerate(modules)}
