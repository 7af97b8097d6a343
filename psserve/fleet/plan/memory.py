"""How much memory one server takes: weights, KV cache and, on a GPU, what CUDA and computing need."""

from __future__ import annotations

from dataclasses import dataclass

from psserve.errors import PlanError
from psserve.fleet.plan.allowance import GIB, Allowance, activation_bytes, card
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.nvidia import Gpu
from psserve.fleet.plan.planned import PlannedServer
from psserve.fleet.plan.sglang_args import EngineSettings
from psserve.zoo import Base

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
KV_DTYPE_BYTES = DTYPE_BYTES | {"fp8_e4m3": 1, "fp8_e5m2": 1}
GPU_UNPLANNED = 0.1
"""Part of a GPU's whole memory that no server is planned into: activations, fragmentation, other programs."""
SMALLEST_POOL = 1_024
"""Tokens. A GPU server that would get less is refused."""


@dataclass(frozen=True)
class KvShape:
    """The shape of a token's KV cache: keys and values of every layer."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: str

    @property
    def token_bytes(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * KV_DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class ServerMemory:
    """The memory of one server, on CPU or on all its GPUs together, in bytes."""

    weight_bytes: int
    kv_tokens: int
    kv_bytes: int
    overhead_bytes: int
    """What is counted for CUDA; 0 on CPU, where the processes themselves are not counted."""

    @property
    def kv_token_bytes(self) -> int:
        """Bytes of one token's KV cache, on all its GPUs together."""
        return self.kv_bytes // self.kv_tokens

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.overhead_bytes


@dataclass(frozen=True)
class Budget:
    """The sizes that every server of a fleet is counted with."""

    weight_bytes: int
    """Of one server as served: a module has exactly the base's tensors, however many of them the zoo stores."""
    token_bytes: int
    page: int
    allowance: Allowance

    @classmethod
    def of(cls, base: Base, settings: EngineSettings, machine: Machine) -> Budget:
        """Count servers of `base` and its modules with these settings, on the machine's smallest GPU."""
        size = DTYPE_BYTES[settings.dtype]
        weight_bytes = int(base.weight_bytes * size / DTYPE_BYTES.get(base.dtype, 2))
        kv_dtype = settings.dtype if settings.kv_cache_dtype == "auto" else settings.kv_cache_dtype
        shape = KvShape(base.num_layers, base.num_kv_heads, base.head_dim, kv_dtype)
        allowance = Allowance(
            card=card(min((gpu.total_bytes for gpu in machine.gpus), default=0)),
            token_bytes=activation_bytes(weight_bytes / size, base.num_layers, size),
            vocab_size=base.vocab_size,
            context_length=settings.context_length,
            chunk=settings.chunked_prefill_size,
            requests=settings.max_running_requests,
        )
        return cls(weight_bytes, shape.token_bytes, settings.page_size, allowance)

    def memory(self, server: PlannedServer, tokens: int, gpus: int) -> ServerMemory:
        """A server with a pool of `tokens`, rounded down to whole pages, on so many GPUs (0: on CPU)."""
        tokens = max(1, tokens // self.page) * self.page
        return ServerMemory(
            weight_bytes=self.weight_bytes,
            kv_tokens=tokens,
            kv_bytes=tokens * self.token_bytes,
            overhead_bytes=gpus * self.overhead(server),
        )

    def overhead(self, server: PlannedServer) -> int:
        """Bytes on each of its GPUs that a server takes beside weights and KV cache."""
        return self.allowance.bytes_on_gpu(server.role, server.options.tp)

    def fixed(self, server: PlannedServer) -> int:
        """Bytes on each of its GPUs that a server takes beside its KV cache."""
        return self.weight_bytes // server.options.tp + self.overhead(server)

    def kv(self, server: PlannedServer, tokens: int) -> int:
        """Bytes on each of its GPUs that `tokens` of KV cache take."""
        return tokens * self.token_bytes // server.options.tp

    def tokens(self, server: PlannedServer, free: int) -> int:
        """Tokens of KV cache that go into `free` bytes on each of its GPUs."""
        return free * server.options.tp // self.token_bytes

    def asked(self, server: PlannedServer, gpus: tuple[Gpu, ...]) -> int | None:
        """KV tokens that a server's options ask for on these GPUs; None: as many as fit.

        Raises:
            PlanError: its memory_fraction leaves no KV cache.
        """
        fraction = server.options.memory_fraction
        if fraction is None:
            return server.options.kv_tokens
        whole = min(gpu.total_bytes for gpu in gpus)
        tokens = self.tokens(server, int(whole * fraction) - self.fixed(server))
        if tokens < SMALLEST_POOL:
            least = self.fixed(server) + self.kv(server, SMALLEST_POOL)
            raise PlanError(
                f"{server.table}.memory_fraction = {fraction:g} of {amount(whole)} is {amount(int(whole * fraction))},"
                f" and {server.name} needs {amount(least)} at least: {amount(self.fixed(server))} for weights and CUDA,"
                f" the rest for {SMALLEST_POOL} tokens of KV cache; raise it"
            )
        return tokens


def usable_bytes(gpu: Gpu) -> int:
    """The memory of one GPU into which servers may be planned."""
    return max(0, gpu.free_bytes - int(gpu.total_bytes * GPU_UNPLANNED))


def amount(count: int) -> str:
    """Bytes, readable."""
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / GIB * 1024:.1f} MiB"
