"""KV leaves a prefill server only after the forward that computes it has finished.

The server's chunking, sending and running of batches are SGLang's own, with its overlap of scheduling and computing.
The GPU is a list of forwards: one is launched by `forward_batch_generation`, and finished once somebody waits for it.
"""

from __future__ import annotations

from array import array
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.disaggregation import prefill as sglang_prefill  # noqa: E402
from sglang.srt.disaggregation.prefill import SchedulerDisaggregationPrefillMixin  # noqa: E402
from sglang.srt.disaggregation.utils import DisaggregationMode  # noqa: E402
from sglang.srt.managers import scheduler as sglang_scheduler  # noqa: E402
from sglang.srt.managers.schedule_batch import Req  # noqa: E402
from sglang.srt.managers.utils import GenerationBatchResult  # noqa: E402
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool, ReqToTokenPool  # noqa: E402
from sglang.srt.model_executor.forward_batch_info import ForwardMode  # noqa: E402
from sglang.srt.sampling.sampling_params import SamplingParams  # noqa: E402
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm  # noqa: E402

from psserve.engine.cpu.allocator import allocator_class  # noqa: E402
from psserve.engine.handover.differences import slots_of  # noqa: E402
from psserve.engine.handover.targets import Span  # noqa: E402
from tests.engine.release import INSTALLED, radix_tree  # noqa: E402
from tests.fleet.fake_zoo import FakeBase, FakeZoo  # noqa: E402
from tests.fleet.planning import TWO_GPUS, plan  # noqa: E402

EARLY_SEND = "SGLANG_DISAGG_PREFILL_EARLY_SEND_CACHED_PREFIX"
POOL, PAGE, CHUNK = 256, 4, 16
HAS_BOUNDS = Span(since="0.5.22").holds(INSTALLED)
"""Whether a chunk is [prefix_len, extend_end) of its request."""


class Gpu:
    """Forwards that were launched, each up to a token of the prompt; what has finished of them; and what was sent."""

    def __init__(self) -> None:
        self.launched: list[int] = []
        self.finished = 0
        self.trace: list[tuple[int, int]] = []
        """Of each piece that was sent: where it ends, and how much of the prompt was computed by then."""

    def event(self) -> Any:
        """What a stream records: waiting for it finishes what was launched before."""
        before = len(self.launched)
        return SimpleNamespace(record=lambda *args, **kwargs: None, synchronize=lambda: self._finish(before))

    def _finish(self, count: int) -> None:
        self.finished = max([self.finished, *self.launched[:count]])

    def send(self, end: int) -> None:
        self.trace.append((end, self.finished))


class Sender:
    """NIXL's and Mooncake's part: what is sent is read from the pool at once."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._sent = gpu, 0

    def should_send_kv_chunk(self, pages: int, is_last: bool) -> bool:
        return pages > 0

    def get_max_transfer_tokens(self) -> None:
        return None

    def send(self, pages: Any, state: Any, num_kv_tokens: int) -> None:
        self._sent += num_kv_tokens
        self._gpu.send(self._sent)


class PrefillServer(SchedulerDisaggregationPrefillMixin):  # type: ignore[misc]
    """A prefill server that computes one long prompt, chunk by chunk."""

    def __init__(self, gpu: Gpu, prompt: list[int]) -> None:
        self.gpu = gpu
        pool = MHATokenToKVPool(POOL, PAGE, torch.float32, 1, 1, 1, "cpu", enable_memory_saver=False)
        self.token_to_kv_pool_allocator = allocator_class(
            POOL, page_size=PAGE, dtype=torch.float32, device="cpu", kvcache=pool, need_sort=False
        )
        self.req_to_token_pool = ReqToTokenPool(2, POOL, "cpu", False)
        self.tree_cache = radix_tree(self.req_to_token_pool, self.token_to_kv_pool_allocator, PAGE)
        self.enable_overlap, self.is_generation, self.enable_staging = True, True, False
        self.enable_unified_memory = self.enable_unified_cache_external_linker = self.enable_dp_attention = False
        self.disaggregation_mode = DisaggregationMode.PREFILL
        self.spec_algorithm = SpeculativeAlgorithm.NONE
        self.forward_ct, self._sched_idled, self.forward_sleep_time = 0, False, None
        self.processed_tokens_counter = 0
        self.scripted_scheduler_hook = self._confidence_budget_prepare = None
        self.disagg_prefill_inflight_queue: list[Any] = []
        self.disagg_prefill_pending_chunk_rids: set[str] = set()
        self.disagg_metadata_buffers = SimpleNamespace(set_buf=lambda req: None)
        self.disagg_prefill_bootstrap_queue = SimpleNamespace(
            kv_manager=SimpleNamespace(kv_args=SimpleNamespace(state_types=[]))
        )
        self.profiler_manager = SimpleNamespace(_profile_batch_predicate=lambda batch: None)
        self.metrics_reporter = SimpleNamespace(
            report_prefill_stats=lambda **kwargs: None, record_scheduler_active=lambda *when: None
        )
        self.batch_result_processor = SimpleNamespace(
            move_logprobs_to_cpu=lambda **kwargs: None,
            snapshot_auxiliary_output_starts=lambda batch, result: None,
            consume_auxiliary_output=lambda *args, **kwargs: None,
        )
        self.future_map = SimpleNamespace(resolve_seq_lens_cpu=lambda batch: None, publish=lambda *args: None)
        self.forward_stream = self.copy_stream = SimpleNamespace(wait_stream=lambda stream: None)
        self.forward_stream_ctx = self.copy_stream_ctx = nullcontext()
        self.schedule_stream = None
        self.scheduler_stage_metrics = self.kv_checksum_computer = None
        self.device_module = SimpleNamespace(Event=gpu.event)
        self.model_worker = SimpleNamespace(forward_batch_generation=self._forward)
        self.running_batch = SimpleNamespace(batch_is_full=False)
        self.req = self._request(prompt)
        self.chunked_req: Any = None

    def _request(self, prompt: list[int]) -> Any:
        req = Req("1", "", array("q", prompt), SamplingParams(max_new_tokens=1), vocab_size=512, bootstrap_room=1)
        (getattr(req, "refresh_fill_ids", None) or req._refresh_fill_ids)()
        handle = getattr(self.tree_cache, "root_node_handle", None)
        req.last_node = handle() if handle else self.tree_cache.root_node
        if not HAS_BOUNDS:
            req.prefix_indices = torch.empty(0, dtype=torch.int64)
        self.req_to_token_pool.alloc([req])
        req.disagg_kv_sender, req.metadata_buffer_index, req.pending_bootstrap = Sender(self.gpu), 0, False
        return req

    def _forward_isolation(self, batch: Any, overlap: bool) -> Any:
        return nullcontext()

    def _relay_forward_payload(self, *args: Any) -> None:
        return None

    def _copy_result_to_cpu(self, *args: Any) -> None:
        return None

    def maybe_send_health_check_signal(self) -> None:
        return None

    def _maybe_report_active_ranks(self) -> None:
        return None

    def _forward(self, batch: Any) -> Any:
        self.gpu.launched.append(self.req.extend_end if HAS_BOUNDS else self.req.extend_range.end)
        result = GenerationBatchResult(None, next_token_ids=torch.tensor([7]))
        result.copy_to_cpu = lambda **kwargs: None
        return result

    def chunk(self) -> Any:
        """The next chunk as a batch: slots for it, and the request's own counters, as SGLang's scheduler has them."""
        start = self.req.prefix_len if HAS_BOUNDS else len(self.req.prefix_indices)
        end = min(start + CHUNK, len(self.req.origin_input_ids))
        if HAS_BOUNDS:
            self.req.extend_end = end
        else:
            self.req.set_extend_range(start, end)
        slots = self.token_to_kv_pool_allocator.alloc(-(-(end - start) // PAGE) * PAGE)
        self.req_to_token_pool.write((slots_of(self.req).req_pool_idx, slice(start, end)), slots[: end - start])
        is_last = end == len(self.req.origin_input_ids)
        self.req.inflight_middle_chunks += not is_last
        self.chunked_req = None if is_last else self.req
        return SimpleNamespace(
            reqs=[self.req],
            forward_mode=ForwardMode.EXTEND,
            extend_num_tokens=end - start,
            hicache_consumer_index=-1,
            spec_algorithm=self.spec_algorithm,
            spec_info=None,
            seq_lens=torch.tensor([end]),
            req_pool_indices=torch.tensor([slots_of(self.req).req_pool_idx]),
            return_logprob=False,
            return_hidden_states=False,
            prefill_stats=None,
            dp_cooperation_info=None,
        )

    def run(self) -> None:
        """All chunks of the prompt: as `event_loop_overlap_disagg_prefill`, one is launched before the last is over."""
        last: tuple[Any, Any] | None = None
        is_over = False
        while not is_over or last:
            if self.chunked_req is not None:
                self.process_prefill_chunk(last_batch=None, running_batch=self.running_batch)
            launched = None
            if not is_over:
                batch = self.chunk()
                launched = batch, sglang_scheduler.Scheduler.run_batch(self, batch)
                is_over = self.chunked_req is None
            if last:
                self.process_batch_result_disagg_prefill(*last)
            last = launched


def trace(monkeypatch: pytest.MonkeyPatch, tokens: int, early_send: str) -> list[tuple[int, int]]:
    """Where each piece of a prompt's KV ended that was sent, and how much was computed by then."""
    monkeypatch.setenv(EARLY_SEND, early_send)
    monkeypatch.setattr(sglang_scheduler, "resolve_forward_inputs", lambda *args: None)
    switches = SimpleNamespace(optimistic_prefill_attempts=0, disaggregation_decode_allocation_policy="eager")
    monkeypatch.setattr(sglang_prefill, "get_disagg", lambda: switches, raising=False)  # since 0.5.22
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    PrefillServer(gpu, list(range(1, tokens + 1))).run()
    return gpu.trace


@pytest.fixture
def planned(tmp_path: Path) -> str:
    """What psserve sets in its servers on GPUs."""
    zoo: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
    return plan(zoo, TWO_GPUS).servers[0].env[EARLY_SEND]


@pytest.mark.parametrize("tokens", [CHUNK, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK + 5, 5 * CHUNK + PAGE])
def test_every_chunk_is_computed_before_it_is_sent(monkeypatch: pytest.MonkeyPatch, planned: str, tokens: int) -> None:
    sent = trace(monkeypatch, tokens, planned)
    assert sent[-1][0] == tokens
    assert all(end <= computed for end, computed in sent)


@pytest.mark.parametrize("tokens", [3 * CHUNK, 5 * CHUNK + PAGE])
def test_the_early_send_would_send_what_is_not_computed_yet(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """Why it is off: were SGLang's default kept, the test above could see it."""
    sent = trace(monkeypatch, tokens, "1")
    assert sent[-1][0] == tokens
    assert any(end > computed for end, computed in sent)
