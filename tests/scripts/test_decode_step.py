"""Where a decode step's time goes, from samples."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts.test_bench_scripts import script

LOOP = "sglang/srt/disaggregation/decode.py:event_loop_normal_disagg_decode"
PREFILL = "sglang/srt/disaggregation/prefill.py:event_loop_normal_disagg_prefill"
RUN = f"{LOOP};sglang/srt/managers/scheduler.py:run_batch;sglang/srt/model_executor/model_runner.py:forward"


@pytest.fixture
def decode_step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("decode_step", monkeypatch)


@pytest.mark.parametrize(
    ("stack", "kind"),
    [
        (f"{RUN};psserve/engine/cpu/linear.py:multiply", "matrix products"),
        (f"{RUN};psserve/engine/cpu/attention.py:_decode", "attention"),
        (f"{RUN};sglang/srt/layers/layernorm.py:forward_native", "norms, rotation, Python of layers"),
        (f"{LOOP};sglang/srt/managers/scheduler.py:on_idle", "hand-over: polls and pauses"),
        (f"{PREFILL};scheduler.py:process_batch_result;prefill.py:send_kv_chunk;nixl", "hand-over: KV sent"),
        (f"{PREFILL};scheduler.py:process_batch_result;tree.py:insert", "batch: made, prepared, looked at"),
        (LOOP, "rest of the loop"),
    ],
)
def test_a_stack_is_of_one_kind(stack: str, kind: str, decode_step: ModuleType) -> None:
    assert decode_step.kind_of(stack) == kind


def test_shares_are_of_one_schedulers_loop(decode_step: ModuleType, tmp_path: Path) -> None:
    hook = f"{LOOP};sglang/srt/disaggregation/decode.py:process_decode_queue;psserve/engine/handover/decode.py:_match"
    stacks = {f"{RUN};psserve/engine/cpu/linear.py:multiply": 60, hook: 20, "importing": 500}
    (tmp_path / "1.json").write_text(json.dumps({"batches": 0, "cpu_s": 0, "stacks": {"uvicorn": 7}}))
    (tmp_path / "2.json").write_text(json.dumps({"batches": 40, "cpu_s": 0.16, "stacks": stacks}))
    (tmp_path / "3.json").write_text(json.dumps({"batches": 9, "cpu_s": 0.9, "stacks": {f"{PREFILL};on_idle": 3}}))
    assert decode_step.of_loop(tmp_path, decode_step.LOOPS["decode_scheduler"]) == {
        "ms_per_step": 4.0,
        "percent": {"matrix products": 75.0, "hand-over: polls and pauses": 25.0},
        "of_which_psserve_hooks_percent": 25.0,
    }
