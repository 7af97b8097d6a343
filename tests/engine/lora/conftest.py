"""A decode server in this process, with the hooks of one for adapters, and slots for two of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.lora.lora_drainer import LoRADrainer  # noqa: E402
from sglang.srt.lora.lora_manager import LoRAManager  # noqa: E402
from sglang.srt.managers.scheduler import Scheduler  # noqa: E402

from psserve.engine import lora  # noqa: E402
from psserve.engine.fixes import retraction  # noqa: E402
from psserve.engine.handover import decode, purity  # noqa: E402
from psserve.engine.settings import NegativeControl, Role  # noqa: E402
from tests.engine.handover.decode_server import DecodeServer, sglang_configured  # noqa: E402
from tests.engine.hooked import hooked  # noqa: E402

SLOTS = 2


@pytest.fixture(scope="module")
def hooked_sglang() -> Iterator[None]:
    """SGLang with the hooks of a decode server for adapters."""
    hooks = [*decode.hooks(NegativeControl.NONE), *retraction.hooks(), *purity.hooks(Role.DECODE)]
    with sglang_configured(), hooked([*hooks, *lora.hooks(Path("/nowhere"), NegativeControl.NONE)]):
        yield


@pytest.fixture(params=[1, 4], ids=["pages of 1", "pages of 4"])
def server(request: pytest.FixtureRequest, hooked_sglang: None) -> Iterator[Any]:
    """It must have leaked no slot when the test ends, and its tree must hold base KV only."""
    server: Any = with_adapters(DecodeServer(request.param))
    yield server
    server.finish()
    server.check_idle()


def with_adapters(server: Any) -> Any:
    manager = LoRAManager.__new__(LoRAManager)
    vars(manager).update(max_loras_per_batch=SLOTS, num_pinned_loras=0, lora_refs={})
    worker = vars(server).setdefault("tp_worker", SimpleNamespace())
    worker.model_runner = SimpleNamespace(lora_manager=manager)
    server.lora_drainer = LoRADrainer(SLOTS, 1e9)  # nobody starves, however slow a test is
    server.enable_lora = True
    if hasattr(Scheduler, "can_schedule_lora_req"):  # from 0.5.20 on
        server.can_schedule_lora_req = lambda *given: Scheduler.can_schedule_lora_req(server, *given)
    server.scheduler_stage_metrics = None  # which later releases have
    server.grammar_manager.grammar_queue = []
    server.disagg_decode_transfer_queue = server.transfer_queue
    server.queue.held_rebootstrap_reqs = []
    return server
