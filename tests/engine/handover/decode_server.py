"""A decode server without processes, network and model: its queues, pools, tree, batches and requests are SGLang's own.

KV is one number a token, so that one can see whose it is: what the base makes of token t is t, what the module makes of
it is t + 0.5. The module's next token depends on every number before it, in order, so that an answer is right only if
all KV is where it must be.
"""

from __future__ import annotations

import inspect
import itertools
from array import array
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.disaggregation.base import KVPoll  # noqa: E402
from sglang.srt.disaggregation.decode import (  # noqa: E402
    DecodePreallocQueue,
    DecodeReqToTokenPool,
    DecodeRequest,
    DecodeTransferQueue,
    SchedulerDisaggregationDecodeMixin,
)
from sglang.srt.disaggregation.utils import (  # noqa: E402
    DisaggregationMode,
    MetadataBuffers,
    ReqToMetadataIdxAllocator,
)
from sglang.srt.layers.logits_processor import LogitsProcessorOutput  # noqa: E402
from sglang.srt.managers.overlap_utils import FutureMap, RelayPayload  # noqa: E402
from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req, ScheduleBatch  # noqa: E402
from sglang.srt.managers.scheduler_components.batch_result_processor import (  # noqa: E402
    SchedulerBatchResultProcessor,
)
from sglang.srt.managers.scheduler_components.invariant_checker import SchedulerInvariantChecker  # noqa: E402
from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer  # noqa: E402
from sglang.srt.managers.utils import GenerationBatchResult  # noqa: E402
from sglang.srt.mem_cache.base_prefix_cache import EvictParams  # noqa: E402
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool  # noqa: E402
from sglang.srt.runtime_context import get_context  # noqa: E402
from sglang.srt.sampling.sampling_params import SamplingParams  # noqa: E402
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm  # noqa: E402

from psserve.engine.cpu.allocator import allocator_class  # noqa: E402
from psserve.rule import base_len  # noqa: E402
from tests.engine.release import HAS_ROW_TREE, node_slots, radix_tree  # noqa: E402

VOCAB = 997
POOL = 128
ROWS = 8
TOKENIZER = SimpleNamespace(eos_token_id=VOCAB - 1, additional_stop_token_ids=None)
THOUGHT_END = BASE_SAMPLED = 900
"""What the base would answer: a token that no module gives and no prompt has. It ends a thought."""
MODULE_LOGPROB, BASE_LOGPROB = -1.0, -9.0
EMITTED = range(100, 400)
"""What modules answer."""


def next_token(kv: Sequence[float]) -> int:
    """The module's answer to this KV."""
    return EMITTED[int(sum((place + 1) * 2 * number for place, number in enumerate(kv))) % len(EMITTED)]


def expected(prompt: Sequence[int], count: int) -> list[int]:
    """The exact answer: the base's KV for x[:-1], the module's from x[-1] on."""
    kv, token, answer = [float(token) for token in prompt[: base_len(len(prompt))]], prompt[-1], []
    for _ in range(count):
        kv.append(token + 0.5)
        token = next_token(kv)
        answer.append(token)
    return answer


def made(kind: Any, **parts: Any) -> Any:
    """One of SGLang's classes, of those of the parts that it takes in this release."""
    taken = inspect.signature(kind).parameters
    return kind(**{name: part for name, part in parts.items() if name in taken})


class Receiver:
    """The receiving end of a transfer: `pages` of the pool are to be filled with the KV from token `start` on."""

    conclude_state = None
    require_staging = False

    def __init__(self) -> None:
        self.pages: list[int] = []
        self.start = 0

    def send_metadata(self, pages: Any, index: int, state: Any, decode_prefix_len: int) -> None:
        self.pages, self.start = pages.tolist(), decode_prefix_len

    def clear(self) -> None:
        """Forget the transfer."""


class DecodeServer(SchedulerDisaggregationDecodeMixin):  # type: ignore[misc]
    """Requests go through `submit`, `preallocate`, `transfer`, `prebuild` and, token by token, `step`."""

    def __init__(self, page_size: int = 1) -> None:
        self.page_size = page_size
        self.kv_pool = MHATokenToKVPool(POOL, page_size, torch.float32, 1, 1, 1, "cpu", enable_memory_saver=False)
        self.token_to_kv_pool_allocator = allocator_class(
            POOL, page_size=page_size, dtype=torch.float32, device="cpu", kvcache=self.kv_pool, need_sort=False
        )
        self.req_to_token_pool = DecodeReqToTokenPool(ROWS, POOL, "cpu", False, ROWS)
        self.tree_cache = radix_tree(self.req_to_token_pool, self.token_to_kv_pool_allocator, page_size)
        self.sent: list[Any] = []
        self.waiting_queue: list[Any] = []
        self.running_batch = ScheduleBatch(reqs=[])
        self.last_batch = None
        self.enable_hisparse = self.enable_decode_hicache = self.enable_priority_scheduling = False
        self.enable_overlap = False
        self.max_running_requests = ROWS
        self.spec_algorithm = SpeculativeAlgorithm.NONE
        self.enable_unified_memory = self.enable_hierarchical_cache = self.enable_lora = False
        self.kv_checksum_computer = self.chunked_req = None
        self.ngram_embedding_manager = SimpleNamespace(prepare_for_forward=lambda *given, **named: None)
        self.tp_worker = SimpleNamespace(is_hybrid_swa=False)
        self.grammar_manager = SimpleNamespace(has_waiting_grammars=lambda: False)
        self.metrics_reporter = SimpleNamespace(
            enable_metrics=False, num_generated_tokens=0, forward_ct_decode=0, report_decode_stats=lambda *a, **k: None
        )
        self.model_config = SimpleNamespace(
            vocab_size=VOCAB, is_encoder_decoder=False, think_end_ids=[THOUGHT_END], self_opened_think_start_ids=None
        )
        self.server_args = get_context().server_args
        self.future_map = FutureMap(torch.device("cpu"), self.spec_algorithm, self.req_to_token_pool)
        self.output_streamer = self._streamer()
        self.result_processor = self.batch_result_processor = self._processor()
        self._make_queues()
        self._rooms = itertools.count(1)

    def _streamer(self) -> Any:
        return made(
            SchedulerOutputStreamer,
            send_to_detokenizer=SimpleNamespace(send_output=self.sent.append),
            tree_cache=self.tree_cache,
            ps=SimpleNamespace(attn_tp_rank=0, dp_rank=0),
            server_args=self.server_args,
            is_generation=True,
            spec_algorithm=self.spec_algorithm,
            disaggregation_mode=DisaggregationMode.DECODE,
            enable_hicache_storage=lambda: False,
        )

    def _processor(self) -> Any:
        unused = dict.fromkeys(
            (
                *("enable_overlap_mlx", "hisparse_coordinator", "decode_offload_manager", "metrics_collector"),
                *("draft_worker", "model_worker", "logprob_result_processor", "abort_request"),
            )
        )
        return made(
            SchedulerBatchResultProcessor,
            beam_coordinator=SimpleNamespace(commit_decode=lambda batch: []),
            is_generation=True,
            disaggregation_mode=DisaggregationMode.DECODE,
            enable_overlap=self.enable_overlap,
            server_args=self.server_args,
            model_config=self.model_config,
            token_to_kv_pool_allocator=self.token_to_kv_pool_allocator,
            tree_cache=self.tree_cache,
            req_to_token_pool=self.req_to_token_pool,
            metrics_reporter=self.metrics_reporter,
            output_streamer=self.output_streamer,
            **unused,
        )

    def _make_queues(self) -> None:
        self.metadata = made(
            MetadataBuffers,
            size=ROWS,
            hidden_size=1,
            hidden_states_dtype=torch.float32,
            max_sampling_mask_tokens=1,
        )
        indices = ReqToMetadataIdxAllocator(ROWS)
        self.transfer_queue = made(
            DecodeTransferQueue,
            gloo_group=None,
            req_to_metadata_buffer_idx_allocator=indices,
            tp_rank=0,
            metadata_buffers=self.metadata,
            scheduler=self,
            tree_cache=self.tree_cache,
        )
        self.transfer_queue._poll_with_metadata_gate = self._polls
        self.queue = DecodePreallocQueue.__new__(DecodePreallocQueue)
        vars(self.queue).update(
            req_to_token_pool=self.req_to_token_pool,
            token_to_kv_pool_allocator=self.token_to_kv_pool_allocator,
            token_to_kv_pool=self.kv_pool,
            req_to_metadata_buffer_idx_allocator=indices,
            metadata_buffers=self.metadata,
            scheduler=self,
            transfer_queue=self.transfer_queue,
            tree_cache=self.tree_cache,
            pp_size=1,
            host_pool=None,
            host_reserved_tokens=0,
            held_rebootstrap_reqs=[],
            kv_checksum_signature=0,
            _prefill_dp_rank_queries={},
            _update_handshake_waiters=lambda *given: None,
            max_total_num_tokens=POOL,
            num_reserved_decode_tokens=0,
            _num_published_destinations=0,
            kv_manager=SimpleNamespace(
                kv_args=SimpleNamespace(state_types=[]), submit_prefill_recompute=lambda *given: None
            ),
            queue=[],
            retracted_queue=[],
            pending_reqs=[],
        )
        self.disagg_decode_prealloc_queue = self.queue

    def _polls(self) -> list[Any]:
        return [KVPoll.Success] * len(self.transfer_queue.queue)

    def submit(self, prompt: Sequence[int], count: int = 4, **options: Any) -> Any:
        """Queue a request for `count` tokens."""
        sampling = SamplingParams(max_new_tokens=count, temperature=0, **options.pop("sampling", {}))
        sampling.normalize(TOKENIZER)
        room = next(self._rooms)
        req = Req(str(room), "", array("q", prompt), sampling, vocab_size=VOCAB, bootstrap_room=room, **options)
        req.tokenizer = TOKENIZER
        self.enqueue(req)
        return req

    def enqueue(self, req: Any, *, rebootstrap: bool = False) -> None:
        self.queue.queue.append(DecodeRequest(req, Receiver(), waiting_for_input=True, is_rebootstrap=rebootstrap))

    def preallocate(self) -> None:
        """Match, lock and allocate, and tell the prefill server where its KV is to go."""
        self.transfer_queue.extend(self.queue.pop_preallocated()[0])

    def transfer(self, cached_tokens: int = 0) -> None:
        """Have the base's KV come for all that was asked for, and take it."""
        self.receive(cached_tokens)
        self.commit()

    def receive(self, cached_tokens: int = 0) -> None:
        """Write the base's KV and its metadata: what it sampled, how much it had cached."""
        for entry in self.transfer_queue.queue:
            self._fill(entry)
            index = entry.metadata_buffer_index
            self.metadata.output_ids[index][0] = BASE_SAMPLED
            self.metadata.cached_tokens[index][:4] = cached_tokens
            self.metadata.output_token_logprobs_val[index][0] = BASE_LOGPROB
            self.metadata.output_token_logprobs_idx[index][0] = BASE_SAMPLED
            self.metadata.bootstrap_room[index][0] = entry.req.bootstrap_room

    def commit(self) -> None:
        """Have SGLang see that all transfers are over."""
        self.waiting_queue.extend(self.transfer_queue.pop_transferred())

    def _fill(self, entry: Any) -> None:
        tokens = [*entry.req.origin_input_ids, *entry.req.output_ids][entry.kv_receiver.start :]
        slots = [page * self.page_size + place for page in entry.kv_receiver.pages for place in range(self.page_size)]
        for slot, token in zip(slots, tokens, strict=False):  # the last page may be larger than what is left
            self.write(slot, float(token))

    def write(self, slot: int, number: float) -> None:
        self.kv_pool.k_buffer[0][slot] = number

    def kv_at(self, slots: torch.Tensor) -> list[float]:
        return [float(number) for number in self.kv_pool.k_buffer[0][slots.long(), 0, 0]]

    def prebuild(self) -> Any:
        """Make a batch of what has come, without running the model, and let it join those that run."""
        batch = self.get_new_prebuilt_batch(self.running_batch)
        if batch:
            self.result_processor.process_batch_result_prebuilt(batch)
            batch.filter_batch()
            if self.running_batch.is_empty():
                self.running_batch = batch
            elif not batch.is_empty():
                self.running_batch.merge_batch(batch)
        return batch

    def step(self) -> None:
        """Run the module once: it reads one token of each request, writes its KV and gives the next."""
        batch = self.running_batch
        batch.filter_batch()
        if batch.is_empty():
            return
        batch.prepare_for_decode()
        read = self.future_map.output_tokens_buf[batch.req_pool_indices]
        given = []
        for row, token, slot, length in zip(
            batch.req_pool_indices, read, batch.out_cache_loc, batch.seq_lens, strict=True
        ):
            self.write(int(slot), float(token) + 0.5)
            given.append(next_token(self.kv_at(self.req_to_token_pool.req_to_token[row, :length])))
        tokens = self.choose(batch, torch.tensor(given))
        self.future_map.stash(batch.req_pool_indices, RelayPayload(bonus_tokens=tokens))
        logits = LogitsProcessorOutput(
            None,
            next_token_logprobs=torch.full((len(given),), MODULE_LOGPROB),
            next_token_top_logprobs_val=[torch.tensor([MODULE_LOGPROB])] * len(given),
            next_token_top_logprobs_idx=[torch.tensor([token]) for token in given],
            next_token_token_ids_logprobs_val=[torch.tensor([MODULE_LOGPROB])] * len(given),
            next_token_token_ids_logprobs_idx=[[token] for token in given],
        )
        self.result_processor.process_batch_result_decode(batch, GenerationBatchResult(logits, next_token_ids=tokens))

    def choose(self, batch: Any, tokens: torch.Tensor) -> torch.Tensor:
        """What the sampler gives for what the module gives."""
        return tokens

    def admit(self) -> None:
        """Take every queued request as far as the running batch."""
        self.preallocate()
        self.transfer()
        self.prebuild()

    def finish(self) -> None:
        """Run until nothing runs."""
        for _ in range(POOL):
            self.step()
            self.running_batch.filter_batch()
            if self.running_batch.is_empty():
                return
        raise AssertionError("requests do not end")

    def run(self) -> None:
        """Take every queued request to its end."""
        self.admit()
        self.finish()

    def retract(self, req: Any) -> None:
        """Take a running request's slots away."""
        batch = self.running_batch
        self._release(req)
        batch.filter_batch(keep_indices=[row for row, other in enumerate(batch.reqs) if other is not req])
        self.queue.retracted_queue.append(req)

    def restart(self, req: Any) -> None:
        """Take a running request's slots away and have the base compute all its KV, as SGLang does for new weights.

        The tree is emptied: what such a request would match there, SGLang 0.5.18 leaks.
        """
        batch = self.running_batch
        self._release(req, offload_kv=False)
        batch.filter_batch(keep_indices=[row for row, other in enumerate(batch.reqs) if other is not req])
        self.tree_cache.evict(EvictParams(num_tokens=POOL))
        req.pd_rebootstrap_forced_output_id = req.output_ids.pop()
        req.pd_rebootstrap_in_progress = True
        self.enqueue(req, rebootstrap=True)

    def _release(self, req: Any, **how: bool) -> None:
        batch = self.running_batch
        given = {"remaing_req_count": 0, "server_args": self.server_args}
        taken = inspect.signature(batch.release_req).parameters
        batch.release_req(batch.reqs.index(req), **{name: it for name, it in given.items() if name in taken}, **how)

    def resume(self) -> None:
        """Give retracted requests slots again, with the KV that they had."""
        self.waiting_queue.extend(self.queue.resume_retracted_reqs())

    def abort(self, req: Any) -> None:
        req.to_finish = FINISH_ABORT("by the client")

    def held(self) -> dict[tuple[int, ...], list[float]]:
        """The tree's paths from the root to every leaf, and the KV that it holds for them."""
        found = {}

        def walk(node: Any, tokens: tuple[int, ...], kv: list[float]) -> None:
            for child in node.children.values():
                path, numbers = (*tokens, *child.key), [*kv, *self.kv_at(node_slots(child))]
                if not child.children:
                    found[path] = numbers
                walk(child, path, numbers)

        walk(self.tree_cache.root_node, (), [])
        return found

    def check_idle(self) -> None:
        """Check what SGLang and psserve check when nothing runs, and that the tree holds what the base computes."""
        free, kept = self.token_to_kv_pool_allocator.available_size(), self.tree_cache.evictable_size()
        assert free + kept == POOL, f"{free} slots are free and {kept} in the tree, of {POOL}"
        assert len(self.req_to_token_pool.free_slots) == 2 * ROWS
        SchedulerInvariantChecker._check_tree_cache(
            SimpleNamespace(tree_cache=self.tree_cache, is_hybrid_swa=False, is_hybrid_ssm=False)
        )
        assert all(list(tokens) == kv for tokens, kv in self.held().items()), self.held()


@contextmanager
def sglang_configured() -> Iterator[None]:
    """SGLang's process-wide settings, as a decode server's are."""
    with (
        get_context().override_server_args(
            disaggregation_mode="decode",
            disaggregation_decode_enable_radix_cache=True,
            disaggregation_decode_retraction_backup="cpu_tensor",
            attention_backend="torch_native",
            device="cpu",
        ),
        _alone(),
    ):
        yield


def _alone() -> AbstractContextManager[Any]:
    """SGLang's parallel state of a process that is alone, which newer releases ask for."""
    if not HAS_ROW_TREE:
        return nullcontext()
    from sglang.srt.runtime_context import get_parallel

    group = SimpleNamespace(cpu_group=None)
    return get_parallel().override(attn_tp_group=group, tp_rank=0, attn_tp_rank=0, dp_rank=None)  # type: ignore[no-any-return]
