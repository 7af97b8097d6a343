"""`psserve`, with models split over the processes on CPUs: `python -m tests.training.fsdp_on_cpu finetune ...`.

PyTorch's FSDP works on CPUs. Accelerate turns it on for accelerators only, which is what is changed here.
"""

from __future__ import annotations

import sys
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from psserve.cli.main import main

accelerates_own = AcceleratorState.__init__


def initialise(self: AcceleratorState, *arguments: Any, fsdp_plugin: Any = None, **options: Any) -> None:
    """As Accelerate does it for several GPUs; it calls this several times, and only once with the plugin."""
    accelerates_own(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
    self.distributed_type = DistributedType.FSDP
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    AcceleratorState.__init__ = initialise
    sys.exit(main())
