"""What is simulated: a system and its servers; which of them a request passes, what it leaves in their caches.

shared          router -> a prefill server of all modules -> KV travels -> a decode server of the module
one-pool        router -> a prefill server of all modules -> KV stays   -> a decode server of the module, reading there
disaggregated   router -> a prefill server of the module  -> KV travels -> a decode server of the module
colocated       router -> a server of the module, which does both
lora            router -> a server of all modules, which does both; caches are the modules' own
single          router -> a server of one model, which plays all modules and does both
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args
from zlib import crc32

import simpy

from psserve.bench.simulator.costs import Costs
from psserve.bench.simulator.device import Device, after
from psserve.bench.simulator.pool import Pool
from psserve.bench.simulator.server import Job, PrefillQueue, SimulatedServer
from psserve.contracts.router_config import PolicyName
from psserve.errors import UsageError
from psserve.router.policies import Choice, Policy, Prompt, Request, make_policy, rotated

SystemName = Literal["shared", "one-pool", "disaggregated", "colocated", "lora", "single"]
SYSTEMS: tuple[SystemName, ...] = get_args(SystemName)
SHARED = frozenset(("shared", "one-pool"))
"""Where one base computes the prompts of all modules."""
PAIRED = SHARED | {"disaggregated"}
"""Where one server computes prompts and another generates."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Every server has one device, or all share some cores. Raises UsageError for servers that make no such system."""

    system: SystemName
    modules: tuple[str, ...]
    prefill: int
    """Servers that compute prompts. Where each does both, there are `prefill + decode` of them."""
    decode: int
    costs: Costs
    kv_tokens: int
    """KV pool of each server."""
    decode_kv_tokens: int | None = None
    """Of each decode server, where that is another."""
    page_size: int = 16
    chunk: int = 8192
    """Most tokens of a prefill batch (SGLang's --chunked-prefill-size)."""
    reserved_tokens: int = 512
    """KV kept free for each answer, or the answer's length if that is more (--num-reserved-decode-tokens)."""
    prefill_policy: PolicyName = "prefix"
    decode_policy: PolicyName = "session"
    routers: int = 1
    """Each has its share of the sessions, and knows nothing of the others' requests."""
    answers_by_base: bool = False
    """Decode servers of `shared` write the base's KV of answers (ICaRus' rule): their caches and the prefill servers'
    keep it, and no answer is read again. psserve serves no such modules."""
    longest_tokens: int | None = None
    """Longer sessions are refused: the costs do not reach so far."""
    cores: float | None = None
    """All servers share so many CPU cores, one each at most; None: each has a device of its own. Less than the machine
    has where busy servers slow each other down: with 1.4, two at once run at 0.7 of their speed."""

    def __post_init__(self) -> None:
        count = len(self.modules)
        if count < 1 or len(set(self.modules)) < count:
            raise UsageError("modules: give at least one, and none twice")
        if self.routers < 1:
            raise UsageError("routers: give at least one")
        if self.prefill < 1 or self.decode < (self.system in PAIRED):
            raise UsageError(f"{self.prefill} prefill and {self.decode} decode servers: give at least one of each")
        if self.answers_by_base and self.system != "shared":
            raise UsageError(f"answers by the base are simulated for `shared` alone, not for `{self.system}`")
        needed = {
            **dict.fromkeys(SHARED, self.decode),
            "disaggregated": min(self.prefill, self.decode),
            "colocated": self.servers,
        }
        if needed.get(self.system, count) < count:
            raise UsageError(
                f"{self.prefill} prefill and {self.decode} decode servers are too few for {count} modules as"
                f" `{self.system}`, where each module has its own: give more servers or fewer modules"
            )

    @property
    def servers(self) -> int:
        return self.prefill + self.decode


class System(ABC):
    """Takes jobs, and gives each to `answered` when its answer is complete."""

    def __init__(self, clock: simpy.Environment, setup: Setup, block_tokens: int, answered: Callable[[Job], None]):
        self.counters = Totals()
        self.servers: dict[str, SimulatedServer] = {}
        self.devices: list[Device] = []
        self._clock = clock
        self._setup = setup
        self._block_tokens = block_tokens
        self._answered = answered
        if setup.cores is not None:
            self.devices.append(Device(clock, setup.cores))

    def submit(self, job: Job) -> None:
        """The client has sent it."""
        after(self._clock, self._setup.costs.router_s, lambda: self._routed(job))

    @abstractmethod
    def _arrived(self, job: Job) -> None:
        """The router has read it."""

    @abstractmethod
    def _held_tokens(self, job: Job) -> int:
        """KV that a job takes up on the server that computes its prompt."""

    @abstractmethod
    def _prefilled(self, job: Job) -> None:
        """Its prompt is computed."""

    @abstractmethod
    def _generated(self, job: Job) -> None:
        """Its answer is complete."""

    def _routed(self, job: Job) -> None:
        job.spans["router_queue"] = (job.sent_s, self._clock.now)
        self._arrived(job)

    def _end(self, job: Job) -> None:
        """The answer is on its way to the client."""
        if self._setup.costs.answer_s:
            after(self._clock, self._setup.costs.answer_s, lambda: self._delivered(job))
        else:
            self._delivered(job)

    def _delivered(self, job: Job) -> None:
        assert job.first_s is not None
        job.first_s += self._setup.costs.answer_s
        if "decode" in job.spans:
            job.spans["decode"] = (job.spans["decode"][0], self._clock.now)
        counters = self.counters
        counters.requests += 1
        counters.prompt_tokens += job.prompt_tokens
        counters.cached_tokens += job.hit_tokens
        counters.computed_tokens += job.read_tokens - job.hit_tokens
        counters.output_tokens += job.output_tokens
        self._answered(job)

    def _add_servers(self, role: str, count: int, kv_tokens: int) -> list[str]:
        setup = self._setup
        names = [f"{role}-{number}" for number in range(count)]
        for name in names:
            pool = Pool(kv_tokens // setup.page_size)
            queue = PrefillQueue(pool, setup.page_size, setup.chunk, self._held_tokens)
            self.servers[name] = SimulatedServer(
                self._clock, self._device(), setup.costs, pool, queue, self._prefilled, self._generated
            )
        return names

    def _device(self) -> Device:
        if self._setup.cores is None:
            self.devices.append(Device(self._clock))
        return self.devices[-1]

    def _group(self, names: list[str], policy: PolicyName, kv_tokens: int) -> Group:
        servers = {name: self.servers[name] for name in names}
        policies = [make_policy(policy, kv_tokens) for _ in range(self._setup.routers)]
        return Group(servers, policies, self._block_tokens)

    def _answer_tokens(self, job: Job) -> int:
        """KV kept for an answer. Its length is known here; a real server guesses, and sometimes has to take it back."""
        return max(job.output_tokens, self._setup.reserved_tokens)


@dataclass
class Totals:
    """Totals of a run; tokens and bytes of all requests, whether their records are kept or not."""

    requests: int = 0
    sessions: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompts, found by the servers that computed them."""
    computed_tokens: int = 0
    output_tokens: int = 0
    decode_cached_tokens: int = 0
    """Of the prompts, found by decode servers: those were not sent."""
    kv_bytes: int = 0
    """Sent from prefill to decode servers."""

    def add(self, other: Totals) -> None:
        """Add the totals of another run."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Group:
    """Servers among which each router chooses by a policy of its own. `block_tokens`: of the blocks that jobs name."""

    def __init__(self, servers: Mapping[str, SimulatedServer], policies: Sequence[Policy], block_tokens: int) -> None:
        self._servers = servers
        self._orders = [rotated(list(servers), number) for number in range(len(policies))]
        self._policies = policies
        self._block_tokens = block_tokens

    def pick(self, job: Job) -> tuple[SimulatedServer, Choice | None]:
        """A server for the job. Give the choice back when the server is done with it; one server needs no choice."""
        names = self._orders[router_of(job, len(self._policies))]
        if len(names) == 1:
            return self._servers[names[0]], None
        prompt = Prompt(job.blocks, job.read_tokens, self._block_tokens)
        request = Request(prompt, job.session, job.output_tokens)
        choice = self._policies[router_of(job, len(self._policies))].choose(request, names)
        return self._servers[choice.server], choice

    def finish(self, job: Job, choice: Choice | None) -> None:
        if choice is not None:
            self._policies[router_of(job, len(self._policies))].finish(choice, served=True)


def router_of(job: Job, routers: int) -> int:
    """The router that a job's session keeps to: whichever its client's connection met."""
    return crc32(job.session.encode()) % routers


def dealt(servers: Sequence[str], modules: Sequence[str]) -> dict[str, list[str]]:
    """Module -> its servers: one after another, so that no module has two more than any other."""
    return {module: list(servers[index :: len(modules)]) for index, module in enumerate(modules)}
