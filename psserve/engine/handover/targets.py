"""Where SGLang has what psserve builds on, release by release: classes, functions that are hooked and called.

`releases.py` compares them with what was recorded of a release, before a server of it starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from psserve.engine.handover.sglang import adapters, http_process, one_pool, request, scheduler, trees
from psserve.engine.versions import number

_REQ = "sglang.srt.managers.schedule_batch.Req"
_ROW = "sglang.srt.managers.schedule_batch.ReqKvInfo"
_QUEUE = "sglang.srt.disaggregation.decode.DecodePreallocQueue"
_CACHE = "sglang.srt.mem_cache"
_TREE = f"{_CACHE}.unified_radix_cache.UnifiedRadixCache"
_CORE = f"{_CACHE}.unified_cache.unified_tree_core_interface"

_CLASSES: Mapping[type, str] = {
    request.Req: "sglang.srt.managers.schedule_batch.Req",
    request.ReqKv: "sglang.srt.managers.schedule_batch.ReqKvInfo",
    request.ReqReasoning: "sglang.srt.managers.schedule_batch.Req",
    request.ReqLogprob: "sglang.srt.managers.schedule_batch.ReqLogprob",
    request.ReqTimeStats: "sglang.srt.observability.req_time_stats.SchedulerReqTimeStats",
    request.SamplingParams: "sglang.srt.sampling.sampling_params.SamplingParams",
    request.TokenizedRequest: "sglang.srt.managers.io_struct.TokenizedGenerateReqInput",
    scheduler.Batch: "sglang.srt.managers.schedule_batch.ScheduleBatch",
    scheduler.Sampler: "sglang.srt.layers.sampler.Sampler",
    scheduler.LogprobProcessor: "sglang.srt.layers.logprob_processor.OutputLogprobProcessor",
    scheduler.FoundLogprobs: "sglang.srt.layers.logprob_processor.LogprobResult",
    scheduler.Logits: "sglang.srt.layers.logits_processor.LogitsProcessorOutput",
    scheduler.SamplingInfo: "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo",
    scheduler.Penalizers: "sglang.srt.sampling.penaltylib.orchestrator.BatchedPenalizerOrchestrator",
    scheduler.Scheduler: "sglang.srt.managers.scheduler.Scheduler",
    scheduler.IdleSleeper: "sglang.srt.managers.scheduler_components.idle_sleeper.IdleSleeper",
    scheduler.ModelRunner: "sglang.srt.model_executor.model_runner.ModelRunner",
    scheduler.TpWorker: "sglang.srt.managers.tp_worker.TpModelWorker",
    scheduler.GrammarManager: "sglang.srt.constrained.grammar_manager.GrammarManager",
    scheduler.Allocator: "sglang.srt.mem_cache.allocator.base.BaseTokenToKVPoolAllocator",
    scheduler.ReqToTokenPool: "sglang.srt.mem_cache.memory_pool.ReqToTokenPool",
    scheduler.InvariantChecker: "sglang.srt.managers.scheduler_components.invariant_checker.SchedulerInvariantChecker",
    scheduler.PreallocQueue: "sglang.srt.disaggregation.decode.DecodePreallocQueue",
    scheduler.TransferQueue: "sglang.srt.disaggregation.decode.DecodeTransferQueue",
    scheduler.DecodeRequest: "sglang.srt.disaggregation.decode.DecodeRequest",
    scheduler.Grammar: "sglang.srt.constrained.xgrammar_backend.XGrammarGrammar",
    scheduler.GrammarBackend: "sglang.srt.constrained.xgrammar_backend.XGrammarGrammarBackend",
    scheduler.KVManager: "sglang.srt.disaggregation.common.conn.CommonKVManager",
    scheduler.KVArgs: "sglang.srt.disaggregation.base.conn.KVArgs",
    one_pool.BootstrapQueue: "sglang.srt.disaggregation.prefill.PrefillBootstrapQueue",
    one_pool.PoolAllocator: "sglang.srt.mem_cache.allocator.base.BaseTokenToKVPoolAllocator",
    one_pool.PoolScheduler: "sglang.srt.managers.scheduler.Scheduler",
    one_pool.PoolPreallocQueue: "sglang.srt.disaggregation.decode.DecodePreallocQueue",
    one_pool.PoolTransferQueue: "sglang.srt.disaggregation.decode.DecodeTransferQueue",
    one_pool.PoolDecodeRequest: "sglang.srt.disaggregation.decode.DecodeRequest",
    one_pool.AnswerLength: "sglang.srt.sampling.sampling_params.SamplingParams",
    one_pool.PoolReq: "sglang.srt.managers.schedule_batch.Req",
    one_pool.KVPool: "sglang.srt.mem_cache.memory_pool.MHATokenToKVPool",
    one_pool.AnyKVPool: "sglang.srt.mem_cache.memory_pool.KVCache",
    one_pool.PoolConfigurator: "sglang.srt.mem_cache.kv_cache_configurator.KVCacheConfigurator",
    one_pool.PoolWorker: "sglang.srt.managers.tp_worker.TpModelWorker",
    one_pool.ModelConfig: "sglang.srt.configs.model_config.ModelConfig",
    one_pool.Manager: "sglang.srt.disaggregation.common.conn.CommonKVManager",
    one_pool.LentArgs: "sglang.srt.disaggregation.base.conn.KVArgs",
    one_pool.Sender: "sglang.srt.disaggregation.common.conn.CommonKVSender",
    one_pool.Receiver: "sglang.srt.disaggregation.common.conn.CommonKVReceiver",
    adapters.LoadedAdapter: "sglang.srt.lora.lora_registry.LoRARef",
    adapters.LoRAManager: "sglang.srt.lora.lora_manager.LoRAManager",
    adapters.LoRADrainer: "sglang.srt.lora.lora_drainer.LoRADrainer",
    adapters.LoRARegistry: "sglang.srt.lora.lora_registry.LoRARegistry",
    adapters.AdapterBatch: "sglang.srt.lora.backend.torch_backend.TorchNativeLoRABatchInfo",
    adapters.AdapterRequest: "sglang.srt.managers.io_struct.GenerateReqInput",
    adapters.RequestCounter: "sglang.srt.utils.common.ConcurrentCounter",
    adapters.LoadRequest: "sglang.srt.managers.io_struct.LoadLoRAAdapterReqInput",
    adapters.UnloadRequest: "sglang.srt.managers.io_struct.UnloadLoRAAdapterReqInput",
    http_process.ClientRequest: "sglang.srt.managers.io_struct.BaseReq",
    http_process.AbortedRequest: "sglang.srt.managers.io_struct.BaseReq",
    http_process.GenerateRequest: "sglang.srt.managers.io_struct.GenerateReqInput",
    http_process.RequestState: "sglang.srt.managers.tokenizer_manager.ReqState",
    http_process.LogProbs: "sglang.srt.entrypoints.openai.protocol.LogProbs",
    http_process.CompletionRequest: "sglang.srt.entrypoints.openai.protocol.CompletionRequest",
    http_process.CompletionChoice: "sglang.srt.entrypoints.openai.protocol.CompletionResponseChoice",
    http_process.Completion: "sglang.srt.entrypoints.openai.protocol.CompletionResponse",
    http_process.CompletionServing: "sglang.srt.entrypoints.openai.serving_base.OpenAIServingBase",
    http_process.TokenizerManager: "sglang.srt.managers.tokenizer_manager.TokenizerManager",
    http_process.Tool: "sglang.srt.entrypoints.openai.protocol.Tool",
    http_process.ToolFunction: "sglang.srt.entrypoints.openai.protocol.Function",
    http_process.ChatRequest: "sglang.srt.entrypoints.openai.protocol.ChatCompletionRequest",
    http_process.ToolCallDetector: "sglang.srt.function_call.base_format_detector.BaseFormatDetector",
    http_process.ToolCallParser: "sglang.srt.function_call.function_call_parser.FunctionCallParser",
    http_process.ReasoningDetector: "sglang.srt.parser.reasoning_parser.BaseReasoningFormatDetector",
    http_process.ReasoningParser: "sglang.srt.parser.reasoning_parser.ReasoningParser",
}
"""Where every release defines what a protocol describes. Every member of the protocol must be found there."""

SET_LATER = {
    request.REBOOTSTRAP: "sglang.srt.disaggregation.decode.DecodePreallocQueue._rebootstrap_prefill_len",
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
    "sglang.srt.mem_cache.base_prefix_cache.BasePrefixCache.supports_prefix_sharing",
    "sglang.srt.mem_cache.base_prefix_cache.BasePrefixCache.unpin",
    "sglang.srt.mem_cache.base_prefix_cache.BasePrefixCache.unlock",
    "sglang.srt.mem_cache.memory_pool.ReqToTokenPool.free",
    "sglang.srt.observability.req_time_stats.SchedulerReqTimeStats.set_decode_prebuilt_finish_time",
    "sglang.srt.plugins.hook_registry._propagate_patch",
    "sglang.srt.disaggregation.common.conn.CommonKVManager._handle_node_failure",
    "sglang.srt.entrypoints.openai.sse_utils.build_sse_content",
    "sglang.srt.layers.logprob_processor.OutputLogprobProcessor.compute_logprobs",
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
    "sglang.srt.managers.schedule_batch.Req.owned_kv_len",
    "sglang.srt.mem_cache.common.maybe_cache_unfinished_req",
    "sglang.srt.mem_cache.common.checkpoint_kv_cache",
    "sglang.srt.mem_cache.radix_cache.RadixCache.cache_finished_req",
    "sglang.srt.mem_cache.radix_cache.RadixCache.cache_unfinished_req",
    "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache.cache_unfinished_req",
    "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache.insert_req",
    "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache.checkpoint_into_tree",
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


@dataclass(frozen=True)
class Span:
    """Releases from `since` on and before `until`; empty where there is no such bound."""

    since: str = ""
    until: str = ""

    def holds(self, release: str) -> bool:
        """Whether `release` is one of them."""
        found = number(release)
        return number(self.since) <= found and (not self.until or found < number(self.until))


_SPANS: Mapping[str, Span] = {
    # Hooks that SGLang made needless. It aborts what it forgets, counts each request of an adapter out once, and takes
    # a request back without leaking its slots.
    "sglang.srt.managers.tokenizer_manager.TokenizerManager._discard_pending_req_states": Span(until="0.5.20"),
    "sglang.srt.managers.tokenizer_manager.TokenizerManager._handle_abort_req": Span(until="0.5.22"),
    "sglang.srt.managers.tokenizer_manager.TokenizerManager._handle_abort_finish_reason": Span(until="0.5.22"),
    "sglang.srt.managers.tokenizer_manager.TokenizerManager._release_req_states_on_failure": Span("0.5.21", "0.5.22"),
    "sglang.srt.disaggregation.decode.DecodePreallocQueue.resume_retracted_reqs": Span(until="0.5.21"),
    # It holds adapters back on decode servers too.
    "sglang.srt.managers.scheduler.Scheduler.can_schedule_lora_req": Span(since="0.5.21"),
    # It keeps the slots of a request that failed until nobody writes to them.
    "sglang.srt.disaggregation.common.conn.CommonKVManager.is_abort_release_safe": Span(since="0.5.21"),
    "sglang.srt.disaggregation.common.conn.CommonKVReceiver._send_abort_notification": Span(since="0.5.21"),
    # It gives each token of a chunk its own alternatives.
    "sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat._process_logprobs_tokens": Span(until="0.5.21"),
    # Two numbers of a request took the place of a range.
    f"{_REQ}.set_extend_range": Span(until="0.5.22"),
    f"{_REQ}.effective_kv_committed_len": Span(until="0.5.21"),
    f"{_REQ}.owned_kv_len": Span(since="0.5.21"),
    # Another tree: it keeps what a request has so far by other names, and says by a match that a request touched it.
    f"{_CACHE}.common.maybe_cache_unfinished_req": Span(until="0.5.22"),
    f"{_CACHE}.common.checkpoint_kv_cache": Span(since="0.5.22"),
    f"{_CACHE}.radix_cache.RadixCache.cache_finished_req": Span(until="0.5.21"),
    f"{_CACHE}.radix_cache.RadixCache.cache_unfinished_req": Span(until="0.5.21"),
    f"{_TREE}.cache_unfinished_req": Span(since="0.5.21", until="0.5.22"),
    f"{_TREE}.insert_req": Span(since="0.5.21", until="0.5.22"),
    f"{_TREE}.checkpoint_into_tree": Span(since="0.5.22"),
    f"{_TREE}.match_prefix": Span(since="0.5.21"),
    f"{_CACHE}.base_prefix_cache.BasePrefixCache.is_tree_cache": Span(until="0.5.22"),
    f"{_CACHE}.base_prefix_cache.BasePrefixCache.supports_prefix_sharing": Span(since="0.5.22"),
    f"{_CACHE}.base_prefix_cache.BasePrefixCache.unpin": Span(since="0.5.21", until="0.5.22"),
    f"{_CACHE}.base_prefix_cache.BasePrefixCache.unlock": Span(since="0.5.22"),
    # What hands KV over was cut into more functions, and one was named anew.
    "sglang.srt.disaggregation.prefill.SchedulerDisaggregationPrefillMixin._send_kv_chunk": Span(since="0.5.21"),
    f"{_QUEUE}._alloc_for_decode_prealloc": Span(since="0.5.21"),
    f"{_QUEUE}._required_admission_tokens": Span(since="0.5.21"),
    f"{_QUEUE}._send_kv_metadata": Span(since="0.5.21"),
    "sglang.srt.disaggregation.decode._bind_root_prefix": Span(since="0.5.21"),
    "sglang.srt.disaggregation.common.conn.CommonKVReceiver._clear": Span(since="0.5.22"),
    "sglang.srt.disaggregation.common.conn.CommonKVReceiver.ensure_abort_notified": Span(since="0.5.21"),
    f"{_CACHE}.common.retraction_discard": Span(until="0.5.21"),
    f"{_CACHE}.common.discard_kv_cache_backup": Span(since="0.5.21"),
    **dict.fromkeys(
        (f"{_CACHE}.radix_cache.RadixCache.{name}" for name in ("inc_lock_ref", "dec_lock_ref", "_split_node")),
        Span(until="0.5.21"),
    ),
    f"{_CACHE}.memory_pool.MHATokenToKVPool._build_kv_buffer_descs": Span(since="0.5.21"),
    f"{_TREE}.lock": Span(since="0.5.22"),
    f"{_TREE}.unlock": Span(since="0.5.22"),
    f"{_TREE}.root_node_handle": Span(since="0.5.21"),
    # That class is the platform's own choice.
    "sglang.srt.platforms.interface.SRTPlatform.get_mha_kv_pool_cls": Span(until="0.5.22"),
}
"""Functions that are hooked, called or defined anew in some releases alone. All others are in every one."""

_CLASSES_OF: tuple[tuple[Span, Mapping[type, str]], ...] = (
    (Span(), _CLASSES),
    (
        Span(until="0.5.21"),
        {
            request.ReqSlots: _REQ,
            trees.NodeTree: f"{_CACHE}.radix_cache.RadixCache",
            trees.TreeNode: f"{_CACHE}.radix_cache.TreeNode",
        },
    ),
    (
        Span(since="0.5.21"),
        {
            request.ReqSlots: _ROW,
            request.KvRow: _ROW,
            trees.RowTree: _TREE,
            trees.TreeCore: f"{_CORE}.UnifiedTreeCoreInterface",
            trees.TreeRows: f"{_CORE}.RadixCacheWalkResult",
        },
    ),
    (Span(since="0.5.21"), {scheduler.KVReceiver: "sglang.srt.disaggregation.common.conn.CommonKVReceiver"}),
    (Span("0.5.21", "0.5.22"), {http_process.SentState: "sglang.srt.managers.tokenizer_manager.ReqState"}),
    (Span("0.5.18", "0.5.21"), {one_pool.BackedUpReq: _REQ}),
    (Span(since="0.5.21"), {one_pool.BackedUpReq: _ROW}),
    (
        Span(until="0.5.22"),
        {
            one_pool.PrefixedReq: _REQ,
            request.RangedReq: _REQ,
            trees.OlderPrefixCache: f"{_CACHE}.base_prefix_cache.BasePrefixCache",
        },
    ),
    (
        Span(since="0.5.22"),
        {
            request.BoundedReq: _REQ,
            request.LockedReq: _REQ,
            trees.PrefixCache: f"{_CACHE}.base_prefix_cache.BasePrefixCache",
        },
    ),
    (Span(since="0.5.23"), {request.ReqThoughtMark: _REQ}),
)


def is_in(target: str, release: str) -> bool:
    """Whether psserve hooks or calls the function at a dotted path in that release."""
    span = _SPANS.get(target)
    return span is None or span.holds(release)


def functions_of(targets: Iterable[str], release: str) -> tuple[str, ...]:
    """Those of the functions that psserve builds on in that release."""
    return tuple(target for target in targets if is_in(target, release))


def classes_of(release: str) -> dict[type, str]:
    """Where a release defines what each protocol describes."""
    return {protocol: path for span, paths in _CLASSES_OF if span.holds(release) for protocol, path in paths.items()}


def every_protocol() -> set[type]:
    """All protocols that some release's classes are held to."""
    return {protocol for _, paths in _CLASSES_OF for protocol in paths}
