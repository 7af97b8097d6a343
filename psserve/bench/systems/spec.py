"""What all systems of a comparison have in common: the models, and the resources that each gets as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from psserve.bench.trace.spans import export_args
from psserve.fleet.options.options import DeviceChoice, DtypeChoice, FleetOptions, TransferChoice
from psserve.fleet.plan.devices import Machine


@dataclass(frozen=True, kw_only=True)
class SystemSpec:
    """One comparison's side conditions. Every system gets the same modules, KV tokens, cores and GPUs."""

    zoo: Path
    modules: tuple[str, ...]
    """Names of modules of the zoo."""
    kv_tokens: int
    """KV cache of all servers of a system together, in tokens. Where some of them prefill and others decode, half of it
    is the former's."""
    context_length: int | None = None
    """Longest prompt and answer together, in tokens; None: the base's."""
    device: DeviceChoice = "auto"
    dtype: DtypeChoice = "auto"
    transfer: TransferChoice = "auto"
    page_size: int = 16
    prefill_servers: int = 1
    """Of `shared`, which share its half of the KV cache. The others have one for each module."""
    threads: int | None = None
    """CPU threads that a server computes with, where it runs on CPU; None: all cores, shared out among the servers of
    its kind (`colocated`: all cores each). Which cores they run on is left to the system."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """For `lora`: module -> folder of its LoRA adapter in PEFT's layout."""
    start_timeout_s: float = 300.0
    exports: Path | None = None
    """Folder where all servers write down when they did what for each request; None: they do not."""

    def export_args(self) -> tuple[str, ...]:
        """SGLang's arguments for `exports`."""
        return () if self.exports is None else export_args(self.exports)

    def server_env(self, device: str, machine: Machine, sharers: int) -> dict[str, str]:
        """What a server of any system has in its environment beside the usual; `sharers` share out a CPU's cores."""
        if device != "cpu":
            return {}
        threads = self.threads or max(1, machine.cores // sharers)
        return {"OMP_NUM_THREADS": str(threads)}

    def fleet_options(self) -> FleetOptions:
        """What a fleet of psserve is told of it, and what the servers of the other systems are planned by, too."""
        return FleetOptions(
            modules=self.modules,
            device=self.device,
            dtype=self.dtype,
            transfer=self.transfer,
            page_size=self.page_size,
            context_length=self.context_length,
            start_timeout_secs=self.start_timeout_s,
        )
