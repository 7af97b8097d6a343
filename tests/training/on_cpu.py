"""`psserve` with two changes: `python -m tests.training.on_cpu finetune ...`.

ACCELERATE_USE_FSDP=true   splits models over the processes. PyTorch's FSDP works on CPUs; Accelerate turns it on for
                           accelerators only.
HELD_UNTIL=FILE            a training waits at the end of step `HELD_STEP` until there is such a file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from psserve.cli.main import main
from psserve.training.progress import StopOnSignal
from tests.waiting import until

HELD_STEP = 6
HELD_WITHIN_S = 300

accelerates_own = AcceleratorState.__init__
ours = StopOnSignal.on_step_end


def initialise(self: AcceleratorState, *arguments: Any, fsdp_plugin: Any = None, **options: Any) -> None:
    """As Accelerate does it for several GPUs; it calls this several times, and only once with the plugin."""
    accelerates_own(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
    self.distributed_type = DistributedType.FSDP
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin


def held(self: StopOnSignal, args: Any, state: Any, control: Any, **rest: Any) -> None:
    """As psserve does it, but in the step that is held: later."""
    if state.global_step == HELD_STEP:
        until(Path(os.environ["HELD_UNTIL"]).exists, HELD_WITHIN_S)
    ours(self, args, state, control, **rest)


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        AcceleratorState.__init__ = initialise
    if "HELD_UNTIL" in os.environ:
        StopOnSignal.on_step_end = held  # type: ignore[method-assign]
    sys.exit(main())
