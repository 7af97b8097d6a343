"""A scheduler's process: its pool of KV, queues, batches and grammars, and how KV gets into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from psserve.engine.handover.sglang.adapters import LoRADrainer, LoRAManager, UnloadRequest
from psserve.engine.handover.sglang.request import Req
from psserve.engine.handover.sglang.trees import TreeCache

if TYPE_CHECKING:
    import torch
    import zmq


class Allocator(Protocol):
    """Which slots of the KV pool are free. The pool has `size` slots, and before them a page of padding."""

    size: int
    page_size: int
    device: str

    def free(self, free_index: torch.Tensor) -> None: ...


class ReqToTokenPool(Protocol):
    """The slots of each request's tokens."""

    req_to_token: torch.Tensor
    """[rows, positions]"""

    def free(self, req: Req) -> None: ...


class ModelRunner(Protocol):
    """The model on a device."""

    lora_manager: LoRAManager


class TpWorker(Protocol):
    """A scheduler's part of the model."""

    model_runner: ModelRunner


class GrammarManager(Protocol):
    """Requests whose grammars are being compiled."""

    grammar_queue: list[Req]


class IdleSleeper(Protocol):
    """What an idle scheduler sleeps on: a poller of sockets."""

    poller: zmq.Poller


class Scheduler(Protocol):
    """What runs batches of requests in a process of its own."""

    req_to_token_pool: ReqToTokenPool
    token_to_kv_pool_allocator: Allocator
    forward_ct: int
    waiting_queue: list[Req]
    """On a decode server: those whose KV is there."""
    running_batch: Batch
    last_batch: Batch | None
    result_queue: Iterable[tuple[Batch, object]]
    """Steps that were started and not looked at, with overlap scheduling."""
    disagg_decode_prealloc_queue: PreallocQueue
    disagg_decode_transfer_queue: TransferQueue
    grammar_manager: GrammarManager
    tp_worker: TpWorker
    lora_drainer: LoRADrainer | None
    idle_sleeper: IdleSleeper | None

    def is_fully_idle(self) -> bool: ...

    def unload_lora_adapter(self, recv_req: UnloadRequest) -> object: ...


class InvariantChecker(Protocol):
    """What looks after a scheduler's memory while nothing runs."""

    tree_cache: TreeCache


class PreallocQueue(Protocol):
    """Requests of a decode server that wait for slots."""

    tree_cache: TreeCache
    token_to_kv_pool_allocator: Allocator
    queue: list[DecodeRequest]
    pending_reqs: list[DecodeRequest]
    retracted_queue: list[Req]
    held_rebootstrap_reqs: list[Req]


class TransferQueue(Protocol):
    """Requests of a decode server that wait for the base's KV."""

    scheduler: Scheduler
    queue: list[DecodeRequest]


class DecodeRequest(Protocol):
    """A request with its transfer."""

    req: Req


class Penalizers(Protocol):
    """The kinds of penalty in use, by class."""

    penalizers: Mapping[type, object]


class SamplingInfo(Protocol):
    """What sampling a batch needs."""

    penalizer_orchestrator: Penalizers
    sampling_seed: torch.Tensor | None
    """[requests], or None where no request has one. So are the others, of floats and ints."""
    temperatures: torch.Tensor
    top_ks: torch.Tensor
    top_ps: torch.Tensor
    min_ps: torch.Tensor


class Sampler(Protocol):
    """What chooses tokens."""

    enable_deterministic: bool
    """Whether it follows seeds itself."""
    output_logprob_processor: LogprobProcessor


class LogprobProcessor(Protocol):
    """What picks the log-probabilities that clients asked for."""

    def compute_logprobs(
        self,
        logprobs: torch.Tensor,
        top_logprobs_nums: list[int],
        token_ids_logprobs: Sequence[list[int] | None],
        batch_next_token_ids: torch.Tensor,
    ) -> FoundLogprobs: ...


class FoundLogprobs(Protocol):
    """Of a batch's next tokens, [requests], and of the likeliest ones, a list a request; None where nobody asked."""

    token_logprobs: torch.Tensor
    top_logprobs_val: list[Any] | None
    top_logprobs_idx: list[Any] | None


class Logits(Protocol):
    """What a forward pass gives, and sampling adds to."""

    next_token_logits: torch.Tensor
    """[requests, vocabulary]"""
    next_token_logprobs: torch.Tensor
    next_token_top_logprobs_val: list[Any]
    next_token_top_logprobs_idx: list[Any]


class Batch(Protocol):
    """Requests that run together, one row each."""

    reqs: list[Req]
    seq_lens_cpu: torch.Tensor
    """[requests]: tokens that each has read when the step is over."""
    sampling_info: SamplingInfo
    token_to_kv_pool_allocator: Allocator
    out_cache_loc: torch.Tensor
    """The slots that the next step writes to."""


class GrammarMatcher(Protocol):
    """xgrammar's, not SGLang's."""

    def fill_next_token_bitmask(self, bitmask: torch.Tensor, index: int) -> bool: ...


class Grammar(Protocol):
    """What may follow in one request."""

    matcher: GrammarMatcher
    accepted_tokens: list[int]
    grammar_stats: Any
    """A dataclass."""

    def allocate_vocab_mask(self, vocab_size: int, batch_size: int, device: str) -> torch.Tensor: ...


class GrammarBackend(Protocol):
    """What compiles grammars."""

    vocab_size: int


class KVManager(Protocol):
    """What a decode server knows of the prefill servers' processes."""

    connection_lock: AbstractContextManager[Any]
    connection_pool: Mapping[str, Sequence[dict[str, Any]]]

    def _handle_node_failure(self, failed_bootstrap_addr: str) -> None: ...


class KVReceiver(Protocol):
    """What gets one request's KV."""

    bootstrap_room: int
    bootstrap_infos: Sequence[dict[str, Any]]
    """The processes that send it, as the manager's pool has them."""


class KVArgs(Protocol):
    """The KV pool as a transfer backend sees it."""

    kv_data_ptrs: list[int]
    kv_data_mem_kinds: list[str]
    """NIXL's word for where each buffer is: DRAM or VRAM."""
