"""What one KV pool for all servers touches, beside what every hand-over does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from psserve.engine.handover.sglang.request import Req, SamplingParams
from psserve.engine.handover.sglang.scheduler import (
    Allocator,
    DecodeRequest,
    PreallocQueue,
    Scheduler,
    TransferQueue,
)

if TYPE_CHECKING:
    import torch


class BootstrapQueue(Protocol):
    """Requests of a prefill server whose decode server has yet to be heard of."""

    kv_manager: Any
    """What tells of KV: a LendingManager."""


class PoolAllocator(Allocator, Protocol):
    """Which slots are free, and what they hold."""

    def available_size(self) -> int: ...

    def get_cpu_copy(self, indices: torch.Tensor, mamba_indices: None = None) -> Any: ...

    def load_cpu_copy(self, kv_cache_cpu: object, indices: torch.Tensor, mamba_indices: None = None) -> None: ...


class PoolScheduler(Scheduler, Protocol):
    """A scheduler of a server that lends KV, or reads it."""

    token_to_kv_pool_allocator: PoolAllocator
    tree_cache: Any
    page_size: int
    max_total_num_tokens: int
    """Tokens of its own pool."""
    enable_overlap: bool
    forward_stream: torch.cuda.Stream
    """On which forwards run where they overlap with the rest."""
    attn_tp_cpu_group: torch.distributed.ProcessGroup
    """The parts of this server."""
    disagg_prefill_bootstrap_queue: BootstrapQueue


class PoolPreallocQueue(PreallocQueue, Protocol):
    """Requests of a decode server that wait for slots of its own pool."""

    scheduler: PoolScheduler
    tree_cache: Any
    token_to_kv_pool_allocator: PoolAllocator
    num_reserved_decode_tokens: int


class PoolTransferQueue(TransferQueue, Protocol):
    """Requests of a decode server that wait for READY."""

    scheduler: PoolScheduler


class PoolDecodeRequest(DecodeRequest, Protocol):
    """A request with what asks for its KV."""

    req: PoolReq
    kv_receiver: object


class AnswerLength(SamplingParams, Protocol):
    """How long a request's answer may be."""

    max_new_tokens: int
    min_new_tokens: int


class PoolReq(Req, Protocol):
    """A request of a decode server."""

    bootstrap_host: str
    bootstrap_room: int
    extra_key: str | None
    sampling_params: AnswerLength

    @property
    def seqlen(self) -> int: ...


class PrefixedReq(Protocol):
    """A request that names the slots of its prompt's beginning."""

    prefix_indices: torch.Tensor


class BackedUpReq(Protocol):
    """What keeps a retracted request's own KV."""

    retraction_backup: Any


class AnyKVPool(Protocol):
    """Any pool of SGLang's."""

    layer_num: int
    page_size: int
    store_dtype: torch.dtype
    device: str


class KVPool(AnyKVPool, Protocol):
    """A server's KV: keys and values."""

    k_buffer: list[torch.Tensor]
    v_buffer: list[torch.Tensor]
    """[rows, heads, elements] for each layer."""

    def _kv_buffer_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]: ...


class PoolConfigurator(Protocol):
    """What sizes a server's pool."""

    device: str
    page_size: int


class PoolWorker(Protocol):
    """A scheduler's part of the model."""

    model_config: ModelConfig


class ModelConfig(Protocol):
    """What the model can do."""

    context_len: int


class Manager(Protocol):
    """What every transfer backend's manager has, ours too."""

    kv_args: LentArgs
    server_args: Any
    rank_port: int
    request_status: dict[int, Any]
    failure_records: dict[int, str]
    req_to_decode_prefix_len: dict[int, int]
    addr_to_rooms_tracker: dict[str, set[int]]
    bootstrap_timeout: float


class LentArgs(Protocol):
    """The buffers of SGLang's metadata, and a page's tokens."""

    page_size: int
    aux_data_ptrs: list[int]
    aux_item_lens: list[int]


class Sender(Protocol):
    """What hands a request's KV over."""

    kv_mgr: Any
    bootstrap_room: int
    conclude_state: Any
    curr_idx: int
    num_kv_indices: int
    aux_index: int | None
    init_time: float | None


class Receiver(Protocol):
    """What gets it."""

    kv_mgr: Any
    bootstrap_room: int
    bootstrap_addr: str
    bootstrap_infos: list[dict[str, Any]]
    conclude_state: Any
    init_time: float | None
