"""How long a fleet may take to start: the more, the more it has to read and to compile."""

from __future__ import annotations

from collections.abc import Sequence

from psserve.fleet.plan.spec import PlanBasis, ServerSpec

START_S = 300.0
"""To import, to build and to answer, with nothing to read."""
COMPILE_S = 600.0
"""On GPUs: SGLang and flashinfer compile kernels at a first start, some minutes on few cores; later ones find them."""
READ_BYTES_PER_S = 200e6
"""Of weights, from a slow disk."""


def start_limit_s(basis: PlanBasis, servers: Sequence[ServerSpec]) -> float:
    """Seconds in which these servers must be ready: as the options say, or by what they have to read and to compile."""
    if basis.options.start_timeout_secs is not None:
        return basis.options.start_timeout_secs
    compiling = COMPILE_S if basis.settings.device == "cuda" else 0.0
    return START_S + compiling + weight_bytes(servers) / READ_BYTES_PER_S


def weight_bytes(servers: Sequence[ServerSpec]) -> int:
    """Bytes of all weights that are read: replicas read the same."""
    return sum({server.module: server.memory.weight_bytes for server in servers}.values())
