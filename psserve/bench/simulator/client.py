"""The agents: what each session sends when, in an open or a closed loop, and which sessions begin with the same text.

The latter is what radix caches and routing policies see of prompts. A text is a number, the same for the same text
after the same text. No string is hashed for one, for Python does that differently in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

import simpy

from psserve.bench.session import Call, Session
from psserve.bench.simulator.device import after
from psserve.bench.simulator.pool import Prefix
from psserve.bench.simulator.server import Job
from psserve.bench.simulator.system import Setup
from psserve.errors import UsageError


@dataclass(eq=False, slots=True)
class _Agent:
    """A session that is going on."""

    session: Session
    number: int
    step: int = 0
    context: int = 0
    """Tokens."""
    open_calls: int = 0
    texts: dict[str, SharedText] = field(default_factory=dict)
    """By the namespace of caches."""


class Agents:
    """Starts sessions and sends their requests to `submit`; `ended` is told of each session that is over."""

    def __init__(
        self,
        clock: simpy.Environment,
        setup: Setup,
        block_tokens: int,
        submit: Callable[[Job], None],
        ended: Callable[[Session], None],
    ) -> None:
        self._clock = clock
        self._setup = setup
        self._texts = SharedTexts(setup.page_size, block_tokens)
        self._submit = submit
        self._ended = ended
        self._modules = frozenset(setup.modules)
        self._agents: dict[str, _Agent] = {}
        self._started = 0

    def open_loop(self, sessions: Iterator[Session]) -> None:
        """Start each session when it is due; they come in that order. Only the next one is ever asked for."""
        session = next(sessions, None)
        if session is None:
            return
        if session.start_s is None:
            raise UsageError(f"session {session.id} has no start: give --concurrency, for a closed loop")
        due = session.start_s

        def start() -> None:
            self._start(session, due)
            self.open_loop(sessions)

        after(self._clock, max(0.0, due - self._clock.now), start)

    def closed_loop(self, sessions: Iterator[Session], concurrency: int) -> None:
        """Keep `concurrency` sessions going until there are no more."""
        ended = self._ended

        def next_one(session: Session) -> None:
            ended(session)
            self._start_next(sessions)

        self._ended = next_one
        for _ in range(concurrency):
            self._start_next(sessions)

    def answered(self, job: Job) -> None:
        """An answer has come: when it is the last of its step, the session goes on."""
        agent = self._agents[job.session]
        agent.open_calls -= 1
        if agent.open_calls:
            return
        agent.context += agent.session.steps[agent.step].calls[0].output_tokens
        agent.step += 1
        self._go_on(agent)

    def _start_next(self, sessions: Iterator[Session]) -> None:
        session = next(sessions, None)
        if session is not None:
            self._start(session, self._clock.now)

    def _start(self, session: Session, due: float) -> None:
        if session.id in self._agents:
            raise ValueError(f"two sessions named {session.id} at once")
        self._started += 1
        agent = self._agents[session.id] = _Agent(session, self._started, context=session.system_tokens)
        self._send(agent, due)

    def _go_on(self, agent: _Agent) -> None:
        if agent.step == len(agent.session.steps):
            del self._agents[agent.session.id]
            self._ended(agent.session)
            return
        due = self._clock.now + agent.session.steps[agent.step].delay_s
        after(self._clock, due - self._clock.now, lambda: self._send(agent, due))

    def _send(self, agent: _Agent, due: float) -> None:
        step = agent.session.steps[agent.step]
        agent.context += step.new_tokens
        agent.open_calls = len(step.calls)
        for index, call in enumerate(step.calls):
            self._submit(self._job(agent, index, call, due))

    def _job(self, agent: _Agent, index: int, call: Call, due: float) -> Job:
        if call.module not in self._modules:
            raise UsageError(f"session {agent.session.id} calls {call.module!r}, which is not simulated")
        session = agent.session
        namespace = call.module if self._setup.system == "lora" else ""
        text = agent.texts.get(namespace)
        if text is None:
            text = agent.texts[namespace] = self._texts.of(session, namespace)
        self._check_room(agent.session, agent.context, call)
        return Job(
            number=agent.number,
            session=session.id,
            step=agent.step,
            call=index,
            module=call.module,
            context=text.context,
            blocks=text.blocks(agent.context),
            prompt_tokens=agent.context,
            read_tokens=agent.context,
            output_tokens=call.output_tokens,
            joins=index == 0,
            due_s=due,
            sent_s=self._clock.now,
        )

    def _check_room(self, session: Session, prompt: int, call: Call) -> None:
        setup, answer = self._setup, max(call.output_tokens, self._setup.reserved_tokens)
        own = setup.decode_kv_tokens or setup.kv_tokens
        if setup.system == "one-pool":
            self._check_pool(session, prompt, prompt, setup.kv_tokens)
            self._check_pool(session, prompt, setup.page_size + answer, own)
        else:
            self._check_pool(session, prompt, prompt + answer, min(setup.kv_tokens, own))
        if setup.longest_tokens is not None and prompt + call.output_tokens > setup.longest_tokens:
            raise UsageError(
                f"session {session.id} has {prompt + call.output_tokens} tokens, and the calibration reaches to"
                f" {setup.longest_tokens}, twice what was measured: calibrate with longer sessions"
            )

    def _check_pool(self, session: Session, prompt: int, needed: int, pool: int) -> None:
        room = pool - self._setup.page_size
        if needed > room:
            raise UsageError(
                f"session {session.id} needs {needed} tokens of KV (a prompt of {prompt} and what is reserved for its"
                f" answer), and a server has {room}: use shorter sessions, or servers with more KV"
            )


BLOCK_BITS = 20
"""Of a block's name: its place in the prompt. The others are the text's number."""


@dataclass(frozen=True, slots=True)
class SharedText:
    """All text of a session, as the caches of one namespace know it."""

    context: Prefix
    own: int
    """Number of what no other session has."""
    shared_blocks: tuple[int, ...]
    """Names of the router's blocks that other sessions may begin with, too."""
    block_tokens: int

    def blocks(self, tokens: int) -> tuple[int, ...]:
        """Names of the whole blocks of a prompt of so many tokens."""
        count, shared = tokens // self.block_tokens, self.shared_blocks
        return shared[:count] + tuple((self.own << BLOCK_BITS) + place for place in range(len(shared), count))


class SharedTexts:
    """Knows the texts of all sessions so far."""

    def __init__(self, page_size: int, block_tokens: int) -> None:
        self._page = page_size
        self._block_tokens = block_tokens
        self._numbers: dict[Hashable, int] = {}
        self._last = 0

    def of(self, session: Session, namespace: str) -> SharedText:
        """The text of a session that begins now. Texts of two namespaces are never the same."""
        runs: list[tuple[int, int]] = []
        blocks: list[int] = []
        number, end = self._number(namespace), 0
        for part, tokens in _shared_parts(session):
            number = self._number((number, part))
            pages = (end + tokens) // self._page - end // self._page
            end += tokens
            if pages:
                runs.append((number, pages))
            blocks += ((number << BLOCK_BITS) + place for place in range(len(blocks), end // self._block_tokens))
        self._last += 1
        return SharedText(Prefix(tuple(runs), self._last), self._last, tuple(blocks), self._block_tokens)

    def _number(self, key: Hashable) -> int:
        number = self._numbers.get(key)
        if number is None:
            self._last += 1
            number = self._numbers[key] = self._last
        return number


def _shared_parts(session: Session) -> Iterator[tuple[Hashable, int]]:
    """Name and tokens of what others may begin with: the system prompt, and whole blocks of a trace."""
    if session.system_tokens:
        yield session.system, session.system_tokens
    first = session.steps[0]
    for block in first.blocks[: first.new_tokens // first.block_tokens]:
        yield block, first.block_tokens
