"""Which pair of workers serves a sequence: asks the policies, and keeps them told of what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psserve.contracts.router_config import ModuleConfig, RouterConfig, WorkerRole
from psserve.router.body.checks import Body
from psserve.router.body.completion import check_length
from psserve.router.body.given import COMPLETION_OUTPUT_TOKENS
from psserve.router.observability.metrics import Metrics
from psserve.router.placement.prompt_key import PromptKeys, TextKeys, opening_of
from psserve.router.placement.shared_prefix import PrefixOwners
from psserve.router.policies import Choice, Policy, Prompt, Request, make_policy, rotated
from psserve.router.policies.events import FollowedHoldings
from psserve.router.policies.index import PredictedHoldings
from psserve.router.workers.failures import unavailable
from psserve.router.workers.workers import Worker, WorkerTable

if TYPE_CHECKING:
    from psserve.router.placement.kv_events import Followers

UNKNOWN_POOL_TOKENS = 2**18
TYPICAL_OUTPUT_TOKENS = 512
"""What policies reckon with for a chat that names no limit: admission knows the module's answers, they do not."""


@dataclass
class Affinity:
    """What routing knows of one prompt; the choices of one prompt share it."""

    session: str | None = None
    """The client's name for the conversation."""
    request: Request | None = None
    """Made once."""
    read_tokens: int = 0
    """Tokens of the prompt, once the base has read it."""


class Place:
    """The workers for one attempt. Their work is on the policies' books until `end`."""

    def __init__(self, routing: Routing, prefill: tuple[Worker, Choice], decode: tuple[Worker, Choice]) -> None:
        self._routing = routing
        self.prefill, self._prefill_choice = prefill
        self.decode, self._decode_choice = decode
        self._is_prefilled = False

    @property
    def prefill_tokens(self) -> int:
        """Work that it puts on the prefill worker."""
        return self._prefill_choice.tokens

    def prefilled(self, body: Body, prompt_tokens: int) -> None:
        """The prefill worker has read the prompt: `prompt_tokens` tokens for `body`."""
        if not self._is_prefilled:
            self._is_prefilled = True
            self._routing.prefill.finish(self._prefill_choice, served=True)
            self._routing.keys.learn(body, self._prefill_choice.request.prompt, prompt_tokens)

    def shared_tokens(self, module: str, prompt_tokens: int, cached_tokens: int) -> int:
        """How many of the cached tokens that the prefill worker reported it had computed for others than `module`."""
        prompt = self._prefill_choice.request.prompt
        return self._routing.owners.computed(self.prefill.name, module, prompt, prompt_tokens, cached_tokens)

    @property
    def outcomes(self) -> tuple[str, str]:
        """Why the prefill and the decode worker were chosen."""
        return self._prefill_choice.outcome, self._decode_choice.outcome

    def end(self) -> None:
        if not self._is_prefilled:
            self._routing.prefill.finish(self._prefill_choice, served=False)
        self._routing.decode.finish(self._decode_choice, served=self._is_prefilled)


@dataclass
class Routing:
    """The policies of one router."""

    table: WorkerTable
    metrics: Metrics
    prefill: Policy
    decode: Policy
    keys: PromptKeys
    context_length: int
    """Tokens of prompt and answer together, at most."""
    followers: Followers | None = None
    """Where prefill workers publish KV events."""
    owners: PrefixOwners = field(default_factory=PrefixOwners)
    first_turn: int = 0
    """Of servers that are equal in all else, this one is first: routers that begin together should not all begin with
    the same one."""
    _seen: dict[str, tuple[Worker, int]] = field(default_factory=dict)

    @classmethod
    def create(cls, config: RouterConfig, table: WorkerTable, metrics: Metrics, first_turn: int = 0) -> Routing:
        """Make what `config` asks for, inside the event loop. Raises UsageError when KV events cannot be followed."""
        pool, context = _pool_tokens(config, "prefill"), config.base.context_length
        decode = make_policy(config.decode_policy, _pool_tokens(config, "decode"))
        published = any(worker.kv_events is not None for worker in config.workers)
        if not published or config.prefill_policy != "prefix":
            policy = make_policy(config.prefill_policy, pool)
            return cls(table, metrics, policy, decode, TextKeys(), context, first_turn=first_turn)
        # Only here: a router without KV events needs neither ZeroMQ nor a tokenizer.
        from psserve.router.placement.kv_events import Followers
        from psserve.router.placement.token_keys import TokenKeys

        check = partial(check_length, max_tokens=None, config=config)
        keys = TokenKeys(Path(config.base.path), config.page_size, check)
        holdings = FollowedHoldings(config.page_size, PredictedHoldings(pool))
        followers = Followers(table, holdings)
        followers.reconfigure()
        policy = make_policy("prefix", pool, holdings)
        return cls(table, metrics, policy, decode, keys, context, followers, first_turn=first_turn)

    def reconfigure(self) -> None:
        """The table has other workers now."""
        self.owners.retain([worker.name for worker in self.table.prefills])
        if self.followers is not None:
            self.followers.reconfigure()

    async def close(self) -> None:
        if self.followers is not None:
            await self.followers.close()

    async def request(self, affinity: Affinity, prefill: Body, decode: Body) -> Request:
        """The policies' view of a sequence with these bodies."""
        if affinity.request is None:
            prompt = await self.keys.prompt(prefill)
            session = affinity.session if affinity.session is not None else opening_of(prefill)
            affinity.request = self._request(prompt, session, _output_limit(decode, is_chat="messages" in prefill))
        return affinity.request

    def _request(self, prompt: Prompt, session: str, limit: int | None) -> Request:
        left = max(1, self.context_length - prompt.tokens)
        if limit is not None:
            return Request(prompt, session, min(limit, left))
        return Request(prompt, session, min(TYPICAL_OUTPUT_TOKENS, left), left)

    def candidates(self, module: ModuleConfig) -> tuple[list[Worker], list[Worker]]:
        """The ready prefill and decode workers for `module`, some of each.

        Raises RequestError (503 module_unavailable).
        """
        decodes = [worker for worker in self.table.decodes_of(module) if worker.serves(module)]
        if not decodes:
            raise unavailable(f"module {module.name!r} is not available now; retry in a moment")
        prefills = [worker for worker in self.table.prefills if worker.is_ready]
        if not prefills:
            raise unavailable("the base's prefill server is not available now; retry in a moment")
        return prefills, decodes

    def place(self, request: Request, prefills: Sequence[Worker], decodes: Sequence[Worker]) -> Place:
        """One of each (at least one), which have the request to do until `Place.end`."""
        self._follow()
        return Place(
            self,
            self._choose("prefill", self.prefill, request, prefills),
            self._choose("decode", self.decode, request, decodes),
        )

    def _choose(
        self, role: WorkerRole, policy: Policy, request: Request, workers: Sequence[Worker]
    ) -> tuple[Worker, Choice]:
        by_name = {worker.name: worker for worker in workers}
        choice = policy.choose(request, rotated(list(by_name), self.first_turn))
        self.metrics.routing_decisions.labels(role, policy.name, choice.outcome).inc()
        return by_name[choice.server], choice

    def _follow(self) -> None:
        """Workers that are gone, or came back since the last look, hold nothing of what they were sent."""
        present = {worker.name: (worker, worker.starts) for worker in self.table.workers}
        for name, seen in self._seen.items():
            if present.get(name) != seen:
                self.prefill.forget(name)
                self.decode.forget(name)
        self._seen = present


def _output_limit(decode: Body, *, is_chat: bool) -> int | None:
    """Tokens that SGLang generates for a decode body, at most; None: until the context is full."""
    limit: int | None = decode.get("max_tokens")
    return decode.get("max_completion_tokens") or limit if is_chat else limit or COMPLETION_OUTPUT_TOKENS


def _pool_tokens(config: RouterConfig, role: WorkerRole) -> int:
    """The KV pool of the smallest worker of a role."""
    known = [worker.kv_tokens for worker in config.workers if worker.role == role and worker.kv_tokens is not None]
    return min(known, default=config.kv_pool_tokens or UNKNOWN_POOL_TOKENS)
