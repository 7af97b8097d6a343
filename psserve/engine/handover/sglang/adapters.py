"""LoRA adapters: how messages name them, and what of them each process has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from psserve.engine.handover.sglang.request import Req

if TYPE_CHECKING:
    import torch


class LoadedAdapter(Protocol):
    """One load of an adapter: another load of it is another one."""

    lora_id: str
    lora_name: str
    lora_path: str
    pinned: bool


class LoRAManager(Protocol):
    """The adapters in a scheduler's process."""

    lora_refs: dict[str, LoadedAdapter]
    """By the load's id: what messages say is loaded, and what may not be loaded again."""

    def validate_lora_batch(self, lora_ids: set[str | None]) -> bool: ...

    def create_lora_update_result(self, success: bool) -> Any: ...


class LoRADrainer(Protocol):
    """Keeps adapters that run from taking new requests while others wait too long."""

    adapter_to_stats: dict[str | None, Any]

    def update_draining_state(self, waiting_queue: list[Req], running_reqs: list[Req]) -> None: ...

    def can_schedule(self, req: Req) -> bool: ...


class LoadRequest(Protocol):
    """What the HTTP process is asked to load: a directory."""

    lora_path: str


class UnloadRequest(Protocol):
    """What a scheduler is asked to unload."""

    lora_id: str


class AdapterRequest(Protocol):
    """A request, of which only the adapters count here: names, as its client knows them."""

    lora_path: str | list[str | None]


class RequestCounter(Protocol):
    """How many requests use something."""

    def value(self) -> int: ...


class LoRARegistry(Protocol):
    """The loaded adapters in the HTTP process."""

    _counters: Mapping[str, RequestCounter]
    """Requests under way, by the load's id."""

    def get_all_adapters(self) -> Mapping[str, LoadedAdapter]: ...

    async def release(self, lora_id: str) -> None: ...


class AdapterBatch(Protocol):
    """Which tokens of a batch have which adapter, of SGLang's LoRA backend without kernels. All int32 but scales.

    A run is neighbours with one adapter; a slot is an adapter's place in the buffers of weights.
    """

    weight_indices_cpu: torch.Tensor
    """The slot of each run."""
    seg_lens_cpu: torch.Tensor
    """The tokens of each run."""
    lora_ranks_cpu: torch.Tensor
    """The rank of each slot; 0 where there is no adapter."""
    scalings_cpu: torch.Tensor
    """[slots] float32"""
