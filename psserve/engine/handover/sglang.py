"""What psserve believes of SGLang: the parts of its objects that hooks touch.

A hook takes these protocols and nothing looser, so mypy refuses an attribute that is not written here; and a server
does not start where SGLang's own class (`targets.py`) lacks one (`releases.py`). Together they keep a field that a
release renamed or moved from being set on the side, in silence.
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


class OlderPrefixCache(Protocol):
    """What keeps KV of requests that ended, or nothing."""

    def is_tree_cache(self) -> bool: ...


class PrefixCache(Protocol):
    """The same by its newer name."""

    def supports_prefix_sharing(self) -> bool: ...


class NodeTree(Protocol):
    """A radix tree whose nodes can be looked at."""

    root_node: TreeNode
    page_size: int


class TreeRows(Protocol):
    """Every token in a tree: its slot, and its place in its prompt."""

    slot_indices: torch.Tensor
    positions: torch.Tensor


class TreeCore(Protocol):
    """What a tree is made of: Python or Rust."""

    def walk_for_kv_canary(self, unlocked_only: bool, swa_resident_only: bool) -> TreeRows: ...


class RowTree(Protocol):
    """A radix tree that tells its tokens, and not its nodes."""

    tree_core: TreeCore

    @property
    def page_size(self) -> int: ...


TreeCache = NodeTree | RowTree


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


class AbortedRequest(Protocol):
    """A scheduler's word that it ended a request before it ran."""

    rid: str


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

    rid: str
    sampling_params: Mapping[str, Any]
    lora_path: str | None
    lora_id: str | None


class AdapterRequest(Protocol):
    """A request, of which only the adapters count here: names, as its client knows them."""

    lora_path: str | list[str | None]


class RequestState(Protocol):
    """A request in the HTTP process."""

    obj: GenerateRequest
    output_token_logprobs: list[tuple[float, int, str]]
    """Log-probability, id and text of each token so far."""


class SentState(Protocol):
    """A request in the HTTP process, which says where it has got to."""

    dispatched: bool
    """Whether a scheduler was told of it."""


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


REBOOTSTRAP = "pd_rebootstrap_in_progress"
"""Set on a Req whose KV, output included, the prefill server computes anew; on any other it may be missing."""
