"""A system of a comparison: the models and resources that it gets as a whole, and what is known of it once it serves.

Its first requests are sent here, too: each of its servers has computed once before anything is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psserve.bench.systems.counters import Counters, Server, read_counters
from psserve.bench.trace.spans import export_args
from psserve.errors import FleetError, StartError, UsageError
from psserve.fleet.options.options import DeviceChoice, DtypeChoice, FleetOptions, TransferChoice
from psserve.fleet.plan.devices import Machine
from psserve.fleet.run.router_client import HttpClient


@dataclass(frozen=True, kw_only=True)
class SystemSpec:
    """One comparison's side conditions. Every system gets the same modules, KV tokens, cores and GPUs."""

    zoo: Path
    modules: tuple[str, ...]
    """Names of modules of the zoo."""
    kv_tokens: int
    """KV cache of all servers of a system together, in tokens. `disaggregated` has half of it for its prefill servers,
    `shared` and `one-pool` what a fleet gives to them."""
    context_length: int | None = None
    """Longest prompt and answer together, in tokens; None: the base's."""
    device: DeviceChoice = "auto"
    dtype: DtypeChoice = "auto"
    transfer: TransferChoice = "auto"
    page_size: int = 16
    prefill_servers: int = 1
    """Of `shared` and `one-pool`, which share their part of the KV cache. The others have one for each module."""
    threads: int | None = None
    """CPU threads that a server computes with, where it runs on CPU; None: all cores, shared out among the servers of
    its kind (`colocated`: all cores each)."""
    cores_by_role: bool = False
    """On a CPU: prefill servers have one half of its cores, decode servers the other, and servers that do both all of
    them. Else which cores they run on is left to the system."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """For `lora`: module -> folder of its LoRA adapter in PEFT's layout, where it is not the zoo's."""
    start_timeout_s: float = 300.0
    args: tuple[str, ...] = ()
    """SGLang's own arguments, for all servers."""
    exports: Path | None = None
    """Folder where all servers write down when they did what for each request; None: they do not."""

    def engine_args(self) -> tuple[str, ...]:
        """SGLang's arguments for `exports`, and `args`."""
        return (*(() if self.exports is None else export_args(self.exports)), *self.args)

    def server_env(self, device: str, machine: Machine, sharers: int, *, does_both: bool = False) -> dict[str, str]:
        """What a server of any system has in its environment beside the usual; `sharers` share out a CPU's cores."""
        if device != "cpu":
            return {}
        cores = machine.cores // 2 if self.cores_by_role and not does_both else machine.cores
        threads = self.threads or max(1, cores // sharers)
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


_ROUNDS = 2
_RETRY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where requests go. `urls`: module -> URL; under "" the one for all modules that have none of their own."""

    urls: Mapping[str, str]
    api_key: str | None = None
    certificate: Path | None = None
    servers: tuple[Server, ...] = ()
    """Those behind it, as far as they are known."""
    pids: Mapping[str, int] = field(default_factory=dict)
    servers_key: str | None = field(default=None, repr=False)

    def endpoints(self, modules: Sequence[str]) -> dict[str, str]:
        """Module -> URL. Raises UsageError for a module that has none."""
        for module in modules:
            if module not in self.urls and "" not in self.urls:
                raise UsageError(f"no --url for module {module}: give one as --url {module}=URL, or one for all")
        return {module: self.urls.get(module, self.urls.get("", "")) for module in modules}

    def counters(self) -> Counters | None:
        """What the servers have done so far; None where they are not known. Raises FleetError if one is silent."""
        return read_counters(self.servers, self.pids, self.servers_key) if self.servers else None


@dataclass(frozen=True)
class RunningSystem:
    """A system of which every module has answered a request."""

    target: Target
    settings: Mapping[str, Any]
    """How it was started, as JSON, for the result line; of one that was up already nothing is known."""
    exports: Path | None = None
    """Where its servers write down what they did when."""


def warm_up(endpoints: Mapping[str, str], within_s: float, note: Callable[[str], None]) -> None:
    """Have every module answer a short chat. Raises StartError for one that does not in time."""
    deadline = time.monotonic() + within_s
    for _ in range(_ROUNDS):
        for module, url in endpoints.items():
            note(f"warming up {module}")
            _ask(module, url, deadline)


def _ask(module: str, url: str, deadline: float) -> None:
    body = {"model": module, "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 4, "temperature": 0}
    while True:
        try:
            HttpClient(url).post("/v1/chat/completions", body, max(1.0, deadline - time.monotonic())).close()
            return
        except FleetError as error:
            if time.monotonic() > deadline:
                raise StartError(f"module {module} does not answer at {url}: {error}") from error
        time.sleep(_RETRY_S)
