"""A request in a scheduler, and what it carries."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, Protocol


class ReqKv(Protocol):
    """The slots of a request: [0, kv_allocated_len) of its row in the pool."""

    kv_allocated_len: int


class ReqLogprob(Protocol):
    """Log-probabilities to be sent: an entry a token of output, where the client asked for them."""

    output_token_logprobs_val: list[float]
    output_token_logprobs_idx: list[int]
    output_top_logprobs_val: list[list[float]]
    output_top_logprobs_idx: list[list[int]]
    output_token_ids_logprobs_val: list[Any] | None
    """Of tokens that the client named, or None where it named none."""
    output_token_ids_logprobs_idx: list[Any] | None


class ReqSlots(Protocol):
    """Which row of the pool a request has, and how far its slots are filled and whose they are."""

    req_pool_idx: int | None
    kv_committed_len: int
    cache_protected_len: int
    """Leading tokens whose slots the tree owns."""


class KvRow(Protocol):
    """A row of the pool, which a request may hold without a slot."""

    @property
    def holds_kv(self) -> bool: ...

    def mark_kv_released(self) -> None: ...


class ReqTimeStats(Protocol):
    """When a request passed which stage."""

    def set_decode_prebuilt_finish_time(self) -> None: ...


class SamplingParams(Protocol):
    """How a request wants to be sampled."""

    sampling_seed: int | None
    max_new_tokens: int
    custom_params: Mapping[str, Any] | None
    """Whatever SGLang itself knows nothing of."""


class Req(Protocol):
    """A request in a scheduler."""

    origin_input_ids: array[int]
    output_ids: array[int]
    sampling_params: SamplingParams
    grammar: object | None
    return_logprob: bool
    logprob: ReqLogprob
    time_stats: ReqTimeStats
    to_finish: object | None
    """Why it is to end at the next look; None while nothing asks for that."""
    retracted_stain: bool
    """It lost its KV to others at least once."""
    skip_radix_cache_insert: bool
    kv: ReqKv
    last_node: object | None
    """The tree's node that it holds a lock on."""
    cached_tokens: int
    already_computed: int
    cached_tokens_device: int
    cached_tokens_host: int
    cached_tokens_storage: int
    lora_id: str | None
    """Its adapter, by the name of this one load of it; None for the base."""

    def finished(self) -> bool: ...


class ReqReasoning(Protocol):
    """How far a request's thought goes, counted token by token as the output comes."""

    reasoning_tokens: int
    _is_reasoning_over: bool
    _think_end_matcher: object | None
    _think_end_match_len: int


class ReqThoughtMark(Protocol):
    """How far into the mark of a thought's beginning, which the output has to give itself."""

    _think_start_match_len: int


class RangedReq(Protocol):
    """A request whose part to compute is a range."""

    def set_extend_range(self, start: int, end: int) -> None: ...


class BoundedReq(Protocol):
    """A request whose part to compute is [prefix_len, extend_end)."""

    prefix_len: int
    extend_end: int


class LockedReq(Protocol):
    """A request that has the receipt of its lock on the tree."""

    lock: object | None


class TokenizedRequest(Protocol):
    """A request on its way to a scheduler."""

    input_ids: array[int] | None


REBOOTSTRAP = "pd_rebootstrap_in_progress"
"""Set on a Req whose KV, output included, the prefill server computes anew; on any other it may be missing."""
