"""A sequence, the pair of workers that it runs on, and what both legs must agree on.

An answer is believed only if the legs counted the same prompt; its `usage` then has the base's count of cached tokens.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import orjson

from psserve.contracts.router_config import ModuleConfig
from psserve.router.admission.admission import Grant
from psserve.router.body.checks import Body
from psserve.router.body.headers import Deadlines
from psserve.router.observability.exchange import SequenceRecord
from psserve.router.placement.routing import Affinity
from psserve.router.workers.failures import broken, split_mismatch
from psserve.router.workers.upstream import Upstream
from psserve.router.workers.workers import Worker
from psserve.rule import base_len

Document = dict[str, Any]
"""A worker's answer."""
ADAPTER_FIELD = "lora_path"
"""SGLang's name for the field of a body that says which adapter answers."""
Usage = dict[str, Any]
"""The `usage` object of an answer."""


@dataclass(frozen=True)
class Sequence:
    """One answer to generate: bodies of both legs, without the pairing fields."""

    path: str
    prefill: Body
    decode: Body
    index: int = 0
    """Where its choice stands in the client's answer."""
    prompt_index: int = 0
    """Where its prompt stands in the client's request: usage counts each prompt once."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Passed on to both workers."""
    prefilled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the base has computed the prompt."""
    after: asyncio.Event | None = None
    """What it waits for before it starts: another sequence's `prefilled`, so that one prompt is computed once."""
    affinity: Affinity = field(default_factory=Affinity)
    """Shared by the choices of one prompt."""
    deadlines: Deadlines | None = None
    """None: the longest that the configuration allows, counted from its start."""
    priority: int = 0
    """Higher goes first in its module's queue."""
    module: ModuleConfig | None = None
    """The module whose adapter `decode` names."""
    given: int = 0
    """Tokens of its answer that the client has sent with the prompt."""

    def of(self, module: ModuleConfig) -> Sequence:
        """The same with the adapter that its module is, which only the decode leg names: the base has none."""
        if module.adapter is None:
            return self
        return replace(self, decode=self.decode | {ADAPTER_FIELD: module.adapter}, module=module)


@dataclass(frozen=True)
class Pair:
    """Two workers and the names they know one attempt by. Never used for a second attempt."""

    prefill: Worker
    decode: Worker
    room: int = field(default_factory=lambda: secrets.randbelow(2**63 - 1) + 1)
    rid: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Fixed length: SGLang's abort matches ids by prefix."""
    fresh: bool = False
    """Use no pooled connection."""
    attempt: int = 1
    """Which one of its sequence."""
    grant: Grant | None = None
    """None for a probe, which nobody lets in and which proves nothing of other requests."""

    def fields(self) -> Body:
        """What tells the workers of each other. In the body: SGLang reads headers on the chat endpoint only."""
        return {
            "rid": self.rid,
            "bootstrap_host": self.prefill.config.host,
            "bootstrap_port": self.prefill.config.bootstrap_port,
            "bootstrap_room": self.room,
        }

    def record(self, started: float, is_first: bool) -> SequenceRecord:
        """Begin the notes of this attempt, whose legs are sent now. `is_first`: of its prompt's choices."""
        return SequenceRecord(
            is_first,
            started,
            prefill=self.prefill.name,
            decode=self.decode.name,
            outcomes=None if self.grant is None else self.grant.place.outcomes,
            attempt=self.attempt,
        )


@dataclass(frozen=True)
class PrefillUsage:
    """What the prefill leg reported, in tokens."""

    prompt_tokens: int
    cached_tokens: int


@dataclass
class Legs:
    """A pair whose prefill leg is done and whose decode leg answers."""

    pair: Pair
    upstream: Upstream
    response: aiohttp.ClientResponse
    prefill: PrefillUsage
    record: SequenceRecord
    opening: bytes = b""
    """What has been read of a stream already."""

    async def read(self) -> bytes:
        payload = await self.upstream.read(self.pair.decode, self.response)
        self.record.whole()
        return payload

    async def read_some(self) -> bytes:
        """The next bytes of a stream, b"" at its end."""
        if self.opening:
            opening, self.opening = self.opening, b""
            return opening
        data = await self.upstream.read_some(self.pair.decode, self.response)
        if data:
            self.record.arrived(data)
        return data

    def check_split(self, decode_prompt_tokens: Any) -> None:
        """Check that the base computed what the rule says of the prompt that the module's server had (see rule.py).

        A prompt of one token shares nothing, and both sides count it as one. Raises LegFailure.
        """
        computed, prompt = self.prefill.prompt_tokens, decode_prompt_tokens
        keeps_rule = isinstance(prompt, int) and prompt > 0 and computed == base_len(prompt)
        if not keeps_rule and not computed == prompt == 1:
            raise split_mismatch(self.pair.decode, computed, prompt)


def check_answer(legs: Legs, payload: bytes) -> Document:
    """The decode leg's answer with its usage checked and filled. Raises LegFailure."""
    try:
        document: Document = orjson.loads(payload)
        finish_reason = document["choices"][0]["finish_reason"]
        usage = document["usage"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise broken(legs.pair.decode, "malformed", f"decode answer: {error!r}") from error
    if finish_reason in ("abort", "error"):
        raise broken(legs.pair.decode, "aborted", f"decode finish_reason {finish_reason!r}")
    document["usage"] = checked_usage(legs, usage)
    return document


def checked_usage(legs: Legs, usage: Usage) -> Usage:
    """`usage` of the decode leg with `cached_tokens` of the prefill leg: what the base did not compute again.

    Raises LegFailure when the two legs disagree about the prompt.
    """
    legs.check_split(usage.get("prompt_tokens"))
    details = usage.get("prompt_tokens_details") or {}
    legs.record.decode_cached_tokens = int(details.get("cached_tokens") or 0)
    legs.record.output_tokens = int(usage.get("completion_tokens") or 0)
    return usage | {"prompt_tokens_details": details | {"cached_tokens": legs.prefill.cached_tokens}}


def as_prompt(usage: Usage, given: int) -> Usage:
    """`usage` of an answer whose first `given` tokens were part of the client's prompt."""
    prompt, completion = usage["prompt_tokens"] + given, usage["completion_tokens"] - given
    return usage | {"prompt_tokens": prompt, "completion_tokens": completion}


def add_usage(parts: Iterable[tuple[Sequence, Usage]]) -> Usage:
    """The usage of a request of several sequences, given in order: each prompt counts once, each answer counts."""
    total: Usage = {"prompt_tokens": 0, "completion_tokens": 0, "reasoning_tokens": 0}
    cached = 0
    seen: set[int] = set()
    for sequence, usage in parts:
        if sequence.prompt_index not in seen:
            seen.add(sequence.prompt_index)
            total["prompt_tokens"] += usage["prompt_tokens"]
            cached += usage["prompt_tokens_details"]["cached_tokens"]
        total["completion_tokens"] += usage.get("completion_tokens") or 0
        total["reasoning_tokens"] += usage.get("reasoning_tokens") or 0
    total["total_tokens"] = total["prompt_tokens"] + total["completion_tokens"]
    total["prompt_tokens_details"] = {"cached_tokens": cached}
    return total
