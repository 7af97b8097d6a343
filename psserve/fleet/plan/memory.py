"""How much memory one server takes: weights, KV cache and, on a GPU, what CUDA and computing need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from psserve.contracts.one_pool import GPU_STEP, round_up, row_step
from psserve.errors import NoRoom
from psserve.fleet.plan.allowance import GIB, Allowance, activation_bytes, card, mixture_activation_bytes
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.nvidia import Gpu
from psserve.fleet.plan.planned import PlannedServer
from psserve.fleet.plan.quantised import DTYPE_BYTES, parameters, served_bytes
from psserve.fleet.plan.sglang_args import EngineSettings
from psserve.zoo import Base, Module
from psserve.zoo.checkpoints.layers import expert_count
from psserve.zoo.disk.storage import read_json

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

    @classmethod
    def of(cls, base: Base, settings: EngineSettings) -> KvShape:
        kv_dtype = settings.dtype if settings.kv_cache_dtype == "auto" else settings.kv_cache_dtype
        return cls(base.num_layers, base.num_kv_heads, base.head_dim, kv_dtype)

    @property
    def token_bytes(self) -> int:
        return 2 * self.layers * self._row_bytes

    def row_step(self, page_size: int, tp: int) -> int:
        """Tokens after which a page ends, and so does what is mapped of a GPU's memory, where it is mapped."""
        return row_step(self._row_bytes // tp, page_size, GPU_STEP)

    @property
    def _row_bytes(self) -> int:
        return self.kv_heads * self.head_dim * KV_DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class ServerMemory:
    """The memory of one server, on CPU or on all its GPUs together, in bytes."""

    weight_bytes: int
    """And of the adapters that have their place on its device."""
    kv_tokens: int
    kv_bytes: int
    overhead_bytes: int
    """What is counted for CUDA; 0 on CPU, where the processes themselves are not counted."""
    kind: str
    """What decides its overhead, see Allowance.kind."""
    adapter_bytes: int = 0
    """Of the adapters that a server keeps in main memory, on GPUs too."""

    @property
    def kv_token_bytes(self) -> int:
        """Bytes of one token's KV cache, on all its GPUs together."""
        return self.kv_bytes // self.kv_tokens

    @property
    def total_bytes(self) -> int:
        """On its device, but for CPU servers' adapters in main memory."""
        return self.weight_bytes + self.kv_bytes + self.overhead_bytes


@dataclass(frozen=True)
class Budget:
    """The sizes that every server of a fleet is counted with."""

    weight_bytes: int
    """Of a server of the base."""
    module_bytes: Mapping[str, int]
    """Module -> weights of one of its servers."""
    token_bytes: int
    page: int
    allowance: Allowance
    measured: Mapping[str, int]
    """Kind of server -> bytes on each of its GPUs, beside weights, KV cache and activations, where they are known."""
    mapped: KvShape | None = None
    """The KV cache's shape, where it is mapped in whole steps of a GPU's memory: with one KV pool for all servers."""

    @classmethod
    def of(
        cls,
        base: Base,
        settings: EngineSettings,
        machine: Machine,
        modules: Iterable[Module],
        measured: Mapping[str, int],
    ) -> Budget:
        """Count servers of `base` and of these modules with these settings, on the machine's smallest GPU."""
        shape = KvShape.of(base, settings)
        allowance = Allowance(
            card=card(min((gpu.total_bytes for gpu in machine.gpus), default=0)),
            token_bytes=activations_of(base, settings.dtype),
            vocab_size=base.vocab_size,
            context_length=settings.context_length,
            chunk=settings.chunked_prefill_size,
            requests=settings.max_running_requests,
        )
        return cls(
            served_bytes(base, None, settings.dtype),
            {module.name: served_bytes(base, module, settings.dtype) for module in modules},
            shape.token_bytes,
            settings.page_size,
            allowance,
            measured,
            shape if settings.one_pool and settings.device == "cuda" else None,
        )

    def weights(self, server: PlannedServer) -> int:
        """Bytes of the weights of a server; a spare one may become one of any module."""
        if server.adapters is not None:
            return self.weight_bytes + server.adapters.device_bytes
        if server.module is None and server.role == "decode":
            return max([self.weight_bytes, *self.module_bytes.values()])
        return self.module_bytes.get(server.module or "", self.weight_bytes)

    def memory(self, server: PlannedServer, tokens: int, gpus: int) -> ServerMemory:
        """A server with a pool of `tokens`, rounded down to whole pages, on so many GPUs (0: on CPU)."""
        tokens = max(1, tokens // self.page) * self.page
        return ServerMemory(
            weight_bytes=self.weights(server),
            kv_tokens=tokens,
            kv_bytes=tokens * self.token_bytes,
            overhead_bytes=gpus * self.overhead(server) + self._padding(server, tokens) * self.token_bytes,
            kind=self._kind(server),
            adapter_bytes=0 if server.adapters is None else server.adapters.main_bytes,
        )

    def overhead(self, server: PlannedServer) -> int:
        """Bytes on each of its GPUs that a server takes beside weights and KV cache."""
        role, tp = server.role, server.options.tp
        if measured := self.measured.get(self._kind(server)):
            return measured + self.allowance.activations(role, tp)
        return self.allowance.bytes_on_gpu(role, tp)

    def _kind(self, server: PlannedServer) -> str:
        kind = self.allowance.kind(server.role, server.options.tp)
        if server.adapters is None:
            return kind
        return f"{kind}, {server.adapters.slots} adapters of rank {server.adapters.rank}"

    def fixed(self, server: PlannedServer) -> int:
        """Bytes on each of its GPUs that a server takes beside its KV cache."""
        most_padding = 0 if self.mapped is None else self._step(self.mapped, server) + self.page
        return self.weights(server) // server.options.tp + self.overhead(server) + self.kv(server, most_padding)

    def _padding(self, server: PlannedServer, tokens: int) -> int:
        """Tokens for which memory is mapped beside those of the pool: SGLang's spare page, and up to a whole step."""
        if self.mapped is None:
            return 0
        return round_up(tokens + self.page, self._step(self.mapped, server)) - tokens

    def _step(self, shape: KvShape, server: PlannedServer) -> int:
        return shape.row_step(self.page, server.options.tp)

    def kv(self, server: PlannedServer, tokens: int) -> int:
        """Bytes on each of its GPUs that `tokens` of KV cache take."""
        return tokens * self.token_bytes // server.options.tp

    def tokens(self, server: PlannedServer, free: int) -> int:
        """Tokens of KV cache that go into `free` bytes on each of its GPUs."""
        return free * server.options.tp // self.token_bytes

    def asked(self, server: PlannedServer, gpus: tuple[Gpu, ...]) -> int | None:
        """KV tokens that a server's options ask for on these GPUs; None: as many as fit.

        Raises:
            NoRoom: its memory_fraction leaves no KV cache.
        """
        fraction = server.options.memory_fraction
        if fraction is None:
            return server.options.kv_tokens
        whole = min(gpu.total_bytes for gpu in gpus)
        tokens = self.tokens(server, int(whole * fraction) - self.fixed(server))
        if tokens < SMALLEST_POOL:
            least = self.fixed(server) + self.kv(server, SMALLEST_POOL)
            raise NoRoom(
                f"{server.table}.memory_fraction = {fraction:g} of {amount(whole)} is {amount(int(whole * fraction))},"
                f" and {server.name} needs {amount(least)} at least: {amount(self.fixed(server))} for weights and CUDA,"
                f" the rest for {SMALLEST_POOL} tokens of KV cache; raise it",
                f"memory_fraction {fraction:g} of {amount(whole)} is less than the {amount(least)} it needs",
            )
        return tokens


def activations_of(base: Base, dtype: str) -> int:
    """Bytes of one token's activations. Of experts only those count that a token is given."""
    config, size = read_json(base.path / "config.json"), DTYPE_BYTES[dtype]
    if not expert_count(config):
        return activation_bytes(parameters(base, dtype), base.num_layers, size)
    inner = config.get("moe_intermediate_size") or config["intermediate_size"]
    return mixture_activation_bytes(config["hidden_size"], inner, config["num_experts_per_tok"], size)


def usable_bytes(gpu: Gpu) -> int:
    """The memory of one GPU into which servers may be planned."""
    return max(0, gpu.free_bytes - int(gpu.total_bytes * GPU_UNPLANNED))


def amount(count: int) -> str:
    """Bytes, readable."""
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / GIB * 1024:.1f} MiB"
