"""What psserve believes of SGLang: the parts of its objects that hooks touch, and the functions that they lean on.

A hook takes these protocols and nothing looser, so mypy refuses an attribute that is not written here; and a server
does not start where SGLang's own class lacks one (`releases.py`). Together they keep a field that a release renamed or
moved from being set on the side, in silence.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from inspect import isfunction
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class ReqKv(Protocol):
    """The slots of a request: [0, kv_allocated_len) of its row in the pool."""

    kv_allocated_len: int


class ReqLogprob(Protocol):
    """Log-probabilities to be sent: an entry a token of output, where the client asked for them."""

    output_token_logprobs_val: list[float]
    output_token_logprobs_idx: list[int]
    output_top_logprobs_val: list[list[float]]
    output_top_logprobs_idx: list[list[int]]


class ReqTimeStats(Protocol):
    """When a request passed which stage."""

    def set_decode_prebuilt_finish_time(self) -> None: ...


class SamplingParams(Protocol):
    """How a request wants to be sampled."""

    sampling_seed: int | None


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
    req_pool_idx: int | None
    kv: ReqKv
    kv_committed_len: int
    cache_protected_len: int
    """Leading tokens whose slots the tree owns."""
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

    def set_extend_range(self, start: int, end: int) -> None: ...


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


class LoadedAdapter(Protocol):
    """One load of an adapter: another load of it is another one."""

    lora_id: str
    lora_name: str
    lora_path: str
    pinned: bool


class LoRAManager(Protocol):
    """The adapters in a scheduler's process."""

    lora_refs: dict[str, LoadedAdapter]
    """By the load's id: what messages say is loaded, and what may not be loaded again."""

    def validate_lora_batch(self, lora_ids: set[str | None]) -> bool: ...

    def create_lora_update_result(self, success: bool) -> Any: ...


class LoRADrainer(Protocol):
    """Keeps adapters that run from taking new requests while others wait too long."""

    adapter_to_stats: dict[str | None, Any]

    def update_draining_state(self, waiting_queue: list[Req], running_reqs: list[Req]) -> None: ...

    def can_schedule(self, req: Req) -> bool: ...


class ModelRunner(Protocol):
    """The model on a device."""

    lora_manager: LoRAManager


class TpWorker(Protocol):
    """A scheduler's part of the model."""

    model_runner: ModelRunner


class GrammarManager(Protocol):
    """Requests whose grammars are being compiled."""

    grammar_queue: list[Req]


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

    def is_fully_idle(self) -> bool: ...

    def unload_lora_adapter(self, recv_req: UnloadRequest) -> object: ...


class LoadRequest(Protocol):
    """What the HTTP process is asked to load: a directory."""

    lora_path: str


class UnloadRequest(Protocol):
    """What a scheduler is asked to unload."""

    lora_id: str


class TreeNode(Protocol):
    """Some tokens in the radix tree and their slots."""

    key: Sized
    value: torch.Tensor
    lock_ref: int
    last_access_time: float
    children: Mapping[Any, TreeNode]


class PrefixCache(Protocol):
    """What keeps KV of requests that ended, or nothing."""

    def is_tree_cache(self) -> bool: ...


class TreeCache(PrefixCache, Protocol):
    """The radix tree."""

    root_node: TreeNode
    page_size: int


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


class Batch(Protocol):
    """Requests that run together, one row each."""

    reqs: list[Req]
    sampling_info: SamplingInfo
    token_to_kv_pool_allocator: Allocator
    out_cache_loc: torch.Tensor
    """The slots that the next step writes to."""


class TokenizedRequest(Protocol):
    """A request on its way to a scheduler."""

    input_ids: array[int] | None


class ClientRequest(Protocol):
    """A request as a client sent it; a batch has a list of ids."""

    rid: str | list[str] | None


class Tokenizer(Protocol):
    """Transformers', not SGLang's."""

    added_tokens_decoder: Mapping[int, AddedToken]

    def convert_ids_to_tokens(self, ids: int) -> str: ...

    def apply_chat_template(self, conversation: Sequence[Mapping[str, str]], **options: Any) -> Any: ...

    def __hash__(self) -> int: ...


class AddedToken(Protocol):
    """A token that a tokenizer knows beside those of its vocabulary: Transformers', not SGLang's."""

    special: bool
    """Texts leave it out, unless the request asks for such tokens."""


class GenerateRequest(Protocol):
    """What a request asks a server for."""

    sampling_params: Mapping[str, Any]
    lora_id: str | None


class AdapterRequest(Protocol):
    """A request, of which only the adapters count here: names, as its client knows them."""

    lora_path: str | list[str | None]


class RequestState(Protocol):
    """A request in the HTTP process."""

    obj: GenerateRequest
    output_token_logprobs: list[tuple[float, int, str]]
    """Log-probability, id and text of each token so far."""


class LogProbs(Protocol):
    """Log-probabilities as completions give them."""

    tokens: list[str]
    text_offset: list[int]


class TokenizerManager(Protocol):
    """What takes requests in the HTTP process."""

    tokenizer: Tokenizer
    rid_to_state: Mapping[str, RequestState]
    lora_registry: LoRARegistry
    lora_ref_cache: dict[str, LoadedAdapter]
    """By name: adapters that may be loaded when asked for."""

    def abort_request(self, rid: str) -> None: ...


class RequestCounter(Protocol):
    """How many requests use something."""

    def value(self) -> int: ...


class LoRARegistry(Protocol):
    """The loaded adapters in the HTTP process."""

    _counters: Mapping[str, RequestCounter]
    """Requests under way, by the load's id."""

    def get_all_adapters(self) -> Mapping[str, LoadedAdapter]: ...

    async def release(self, lora_id: str) -> None: ...


class AdapterBatch(Protocol):
    """Which tokens of a batch have which adapter, of SGLang's LoRA backend without kernels. All int32 but scales.

    A run is neighbours with one adapter; a slot is an adapter's place in the buffers of weights.
    """

    weight_indices_cpu: torch.Tensor
    """The slot of each run."""
    seg_lens_cpu: torch.Tensor
    """The tokens of each run."""
    lora_ranks_cpu: torch.Tensor
    """The rank of each slot; 0 where there is no adapter."""
    scalings_cpu: torch.Tensor
    """[slots] float32"""


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


class ToolFunction(Protocol):
    """A function that may be called."""

    parameters: Any
    """The JSON schema of its arguments, or None."""
    strict: bool


class Tool(Protocol):
    """A tool as a client offers it."""

    function: ToolFunction


class ChatRequest(Protocol):
    """The body of a chat request."""

    model: str
    messages: Sequence[Any]
    """With `role` and `content`, a text or its parts."""
    continue_final_message: bool
    reasoning_effort: str | float | None
    chat_template_kwargs: dict[str, Any] | None
    """What the template is rendered with beside the messages."""


class ToolCallDetector(Protocol):
    """Reads calls of tools in one model family's form, of one answer."""

    bot_token: str
    eot_token: str
    _buffer: str
    """Text that was not given out."""
    current_tool_id: int
    current_tool_name_sent: bool
    prev_tool_call_arr: list[dict[str, Any]]
    streamed_args_for_tool: list[str]

    def has_tool_call(self, text: str) -> bool: ...

    def parse_streaming_increment(self, new_text: str, tools: list[Tool]) -> Any: ...


class ToolCallParser(Protocol):
    """A detector and the tools that were offered."""

    tools: list[Tool]
    detector: ToolCallDetector

    def parse_stream_chunk(self, chunk_text: str) -> tuple[str, list[Any]]: ...


class ReasoningDetector(Protocol):
    """The marks of thoughts in one model family's form, and what SGLang makes of one answer."""

    think_start_token: str
    think_end_token: str
    tool_start_token: str | None
    """What ends a thought too."""
    _in_reasoning: bool
    """Before anything is read: whether an answer without marks is a thought."""


class ReasoningParser(Protocol):
    """Reads thoughts in one answer."""

    detector: ReasoningDetector


class KVManager(Protocol):
    """What a decode server knows of the prefill servers' processes."""

    connection_lock: AbstractContextManager[Any]
    connection_pool: Mapping[str, Sequence[dict[str, Any]]]

    def _handle_node_failure(self, failed_bootstrap_addr: str) -> None: ...


class KVArgs(Protocol):
    """The KV pool as a transfer backend sees it."""

    kv_data_ptrs: list[int]
    kv_data_mem_kinds: list[str]
    """NIXL's word for where each buffer is: DRAM or VRAM."""


def members(protocol: type) -> tuple[str, ...]:
    """The names of a protocol's fields and methods: what a stand-in for it must have."""
    methods = (name for name, value in vars(protocol).items() if isfunction(value) and not name.startswith("__"))
    return (*vars(protocol).get("__annotations__", {}), *methods)


CLASSES: Mapping[type, str] = {
    Req: "sglang.srt.managers.schedule_batch.Req",
    ReqKv: "sglang.srt.managers.schedule_batch.ReqKvInfo",
    ReqLogprob: "sglang.srt.managers.schedule_batch.ReqLogprob",
    ReqTimeStats: "sglang.srt.observability.req_time_stats.SchedulerReqTimeStats",
    Batch: "sglang.srt.managers.schedule_batch.ScheduleBatch",
    SamplingParams: "sglang.srt.sampling.sampling_params.SamplingParams",
    Sampler: "sglang.srt.layers.sampler.Sampler",
    SamplingInfo: "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo",
    Penalizers: "sglang.srt.sampling.penaltylib.orchestrator.BatchedPenalizerOrchestrator",
    Scheduler: "sglang.srt.managers.scheduler.Scheduler",
    LoadedAdapter: "sglang.srt.lora.lora_registry.LoRARef",
    LoRAManager: "sglang.srt.lora.lora_manager.LoRAManager",
    LoRADrainer: "sglang.srt.lora.lora_drainer.LoRADrainer",
    LoRARegistry: "sglang.srt.lora.lora_registry.LoRARegistry",
    AdapterBatch: "sglang.srt.lora.backend.torch_backend.TorchNativeLoRABatchInfo",
    AdapterRequest: "sglang.srt.managers.io_struct.GenerateReqInput",
    RequestCounter: "sglang.srt.utils.common.ConcurrentCounter",
    LoadRequest: "sglang.srt.managers.io_struct.LoadLoRAAdapterReqInput",
    UnloadRequest: "sglang.srt.managers.io_struct.UnloadLoRAAdapterReqInput",
    ModelRunner: "sglang.srt.model_executor.model_runner.ModelRunner",
    TpWorker: "sglang.srt.managers.tp_worker.TpModelWorker",
    GrammarManager: "sglang.srt.constrained.grammar_manager.GrammarManager",
    Allocator: "sglang.srt.mem_cache.allocator.base.BaseTokenToKVPoolAllocator",
    ReqToTokenPool: "sglang.srt.mem_cache.memory_pool.ReqToTokenPool",
    TreeNode: "sglang.srt.mem_cache.radix_cache.TreeNode",
    PrefixCache: "sglang.srt.mem_cache.base_prefix_cache.BasePrefixCache",
    TreeCache: "sglang.srt.mem_cache.radix_cache.RadixCache",
    InvariantChecker: "sglang.srt.managers.scheduler_components.invariant_checker.SchedulerInvariantChecker",
    PreallocQueue: "sglang.srt.disaggregation.decode.DecodePreallocQueue",
    TransferQueue: "sglang.srt.disaggregation.decode.DecodeTransferQueue",
    DecodeRequest: "sglang.srt.disaggregation.decode.DecodeRequest",
    TokenizedRequest: "sglang.srt.managers.io_struct.TokenizedGenerateReqInput",
    ClientRequest: "sglang.srt.managers.io_struct.BaseReq",
    GenerateRequest: "sglang.srt.managers.io_struct.GenerateReqInput",
    RequestState: "sglang.srt.managers.tokenizer_manager.ReqState",
    LogProbs: "sglang.srt.entrypoints.openai.protocol.LogProbs",
    TokenizerManager: "sglang.srt.managers.tokenizer_manager.TokenizerManager",
    Grammar: "sglang.srt.constrained.xgrammar_backend.XGrammarGrammar",
    GrammarBackend: "sglang.srt.constrained.xgrammar_backend.XGrammarGrammarBackend",
    Tool: "sglang.srt.entrypoints.openai.protocol.Tool",
    ToolFunction: "sglang.srt.entrypoints.openai.protocol.Function",
    ChatRequest: "sglang.srt.entrypoints.openai.protocol.ChatCompletionRequest",
    ToolCallDetector: "sglang.srt.function_call.base_format_detector.BaseFormatDetector",
    ToolCallParser: "sglang.srt.function_call.function_call_parser.FunctionCallParser",
    ReasoningDetector: "sglang.srt.parser.reasoning_parser.BaseReasoningFormatDetector",
    ReasoningParser: "sglang.srt.parser.reasoning_parser.ReasoningParser",
    KVManager: "sglang.srt.disaggregation.common.conn.CommonKVManager",
    KVArgs: "sglang.srt.disaggregation.base.conn.KVArgs",
}
"""Where SGLang defines what a protocol describes. Every member of the protocol must be found there."""

REBOOTSTRAP = "pd_rebootstrap_in_progress"
"""Set on a Req whose KV, output included, the prefill server computes anew; on any other it may be missing."""

SET_LATER = {
    REBOOTSTRAP: "sglang.srt.disaggregation.decode.DecodePreallocQueue._rebootstrap_prefill_len",
    "kv_data_mem_kinds": "sglang.srt.disaggregation.nixl.conn.NixlKVManager.__init__",
}
"""Fields that their class does not name, and a function of SGLang's that reads each by this name."""

PENALTY_COUNTERS = {
    "sglang.srt.sampling.penaltylib.frequency_penalty.BatchedFrequencyPenalizer": "cumulated_frequency_penalties",
    "sglang.srt.sampling.penaltylib.presence_penalty.BatchedPresencePenalizer": "cumulated_presence_penalties",
    "sglang.srt.sampling.penaltylib.repetition_penalty.BatchedRepetitionPenalizer": "cumulated_repetition_penalties",
    "sglang.srt.sampling.penaltylib.min_new_tokens.BatchedMinNewTokensPenalizer": "len_output_tokens",
}
"""Every penalizer, and what it counts of a request's output: [requests, ...]."""

CALLED = (
    "sglang.srt.managers.schedule_batch.Req.finished",
    "sglang.srt.managers.schedule_batch.Req.set_extend_range",
    "sglang.srt.managers.scheduler.Scheduler.is_fully_idle",
    "sglang.srt.managers.tokenizer_manager.TokenizerManager.abort_request",
    "sglang.srt.mem_cache.base_prefix_cache.BasePrefixCache.is_tree_cache",
    "sglang.srt.observability.req_time_stats.SchedulerReqTimeStats.set_decode_prebuilt_finish_time",
    "sglang.srt.disaggregation.common.conn.CommonKVManager._handle_node_failure",
    "sglang.srt.entrypoints.openai.sse_utils.build_sse_content",
    "sglang.srt.constrained.base_grammar_backend.InvalidGrammarObject.__init__",
    "sglang.srt.constrained.xgrammar_backend.XGrammarGrammar.__init__",
    "sglang.srt.constrained.xgrammar_backend.XGrammarGrammar.allocate_vocab_mask",
    "sglang.srt.constrained.xgrammar_backend.XGrammarGrammar.accept_token",
    "sglang.srt.constrained.xgrammar_backend.XGrammarGrammar.apply_vocab_mask",
    "sglang.srt.mem_cache.allocator.token.TokenToKVPoolAllocator.free",
    "sglang.srt.mem_cache.allocator.paged.PagedTokenToKVPoolAllocator.free",
    "sglang.srt.mem_cache.cpp_utils.native_hash._native_hash_input",
    "sglang.srt.lora.lora_drainer.LoRADrainer.can_schedule",
    "sglang.srt.lora.lora_drainer.LoRADrainer.update_draining_state",
    "sglang.srt.lora.lora_manager.LoRAManager.create_lora_update_result",
    "sglang.srt.lora.lora_manager.LoRAManager.validate_lora_batch",
    "sglang.srt.lora.lora_registry.LoRARegistry.get_all_adapters",
    "sglang.srt.lora.lora_registry.LoRARegistry.release",
    "sglang.srt.utils.common.ConcurrentCounter.value",
    # Called by SGLang alone, but the rule holds by what they do between two hooks.
    "sglang.srt.disaggregation.decode.DecodePreallocQueue._pre_alloc",
    "sglang.srt.managers.schedule_batch.Req.effective_kv_committed_len",
    "sglang.srt.mem_cache.common.maybe_cache_unfinished_req",
    "sglang.srt.mem_cache.radix_cache.RadixCache.cache_finished_req",
    "sglang.srt.mem_cache.radix_cache.RadixCache.cache_unfinished_req",
    # And adapters by what these do.
    "sglang.srt.lora.lora_manager.LoRAManager._unload_lora_adapter",
    "sglang.srt.managers.tokenizer_control_mixin.TokenizerControlMixin._unload_lora_adapter_locked",
)
"""Functions that are not hooked, but that psserve's own servers lean on."""

CALLED_ON_CPU = (
    "sglang.srt.platforms.interface.SRTPlatform.get_default_attention_backend",
    "sglang.srt.platforms.interface.SRTPlatform.get_mha_kv_pool_cls",
    "sglang.srt.platforms.interface.SRTPlatform.get_paged_allocator_cls",
    "sglang.srt.platforms.interface.SRTPlatform.get_compile_backend",
    "sglang.srt.mem_cache.allocator.paged.PagedTokenToKVPoolAllocator.alloc_extend",
    "sglang.srt.mem_cache.allocator.paged.PagedTokenToKVPoolAllocator.alloc_decode",
    "sglang.srt.mem_cache.allocator.base.BaseTokenToKVPoolAllocator.merge_and_sort_free",
)
"""Functions that the CPU's platform defines anew or calls."""
