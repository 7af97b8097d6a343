"""Imports SGLang as psserve's servers on CPU do, in their environment. For the process that tests fork from alone."""

from __future__ import annotations

import os
from pathlib import Path

import setproctitle

from psserve.engine import preload
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.host import local_host
from psserve.fleet.plan.sglang_args import EngineSettings, server_env

_SETTINGS = EngineSettings(
    device="cpu",
    dtype="float32",
    transfer="nixl",
    page_size=16,
    context_length=1,
    chunked_prefill_size=None,
    max_running_requests=None,
)
_HOST = local_host(Machine(1, 0, 0, ()), os.environ)
ENVIRONMENT = server_env(_SETTINGS, _HOST, tmp_dir=Path("/"), rendezvous=Path("/"), extra={})
"""What a fleet's servers get, but for what differs from fleet to fleet."""

setproctitle.getproctitle()  # while the environment, by which it finds the title's place, is as at start
os.environ.clear()
os.environ.update(ENVIRONMENT)
preload.import_sglang()
