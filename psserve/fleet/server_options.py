"""What can be said of the servers of a role or of a module: tables of fleet.toml (psserve/fleet/options.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from psserve.fleet.engine_args import refusal
from psserve.tables import Count, Table

Port = Annotated[int, Field(ge=1, le=65535)]
GpuId = Annotated[int, Field(ge=0)]
_PLACING = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


class ServerOptions(Table):
    """What can be said of the servers of a role or module."""

    replicas: Count = 1
    """Number of servers (in `decode` and `module.NAME`: of each module)."""
    gpus: tuple[GpuId, ...] | None = Field(default=None, min_length=1)
    """GPUs to use, as CUDA_VISIBLE_DEVICES counts them: `tp` for each replica in turn, again from the first when
    there are more replicas. Left out: psserve chooses."""
    tp: Count = 1
    """Tensor parallel size: GPUs that one server is split over. They must be neighbours (0 and 1, 2 and 3)."""
    kv_tokens: Count | None = None
    """KV pool of each server, in tokens. Left out: what its GPU has left, evenly; 16384 on CPU."""
    memory_fraction: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """In place of kv_tokens: the part of each of its GPUs' memory that a server may take for all it holds."""
    args: tuple[str, ...] = ()
    """SGLang's own arguments, handed to the servers as they are, last."""
    env: Mapping[str, str] = Field(default_factory=dict)
    """Environment variables set in the servers, over all else."""

    @field_validator("args")
    @classmethod
    def _none_reserved(cls, args: tuple[str, ...]) -> tuple[str, ...]:
        if reason := refusal(args):
            raise ValueError(reason)
        return args

    @field_validator("env")
    @classmethod
    def _names(cls, env: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in env.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"{name!r} cannot be set in an environment: give NAME and a text")
            if name in _PLACING:
                raise ValueError(f"{name} decides which GPUs there are to plan with: set it for psserve launch itself")
        return env

    @model_validator(mode="after")
    def _consistent(self) -> ServerOptions:
        if self.kv_tokens is not None and self.memory_fraction is not None:
            raise ValueError("kv_tokens and memory_fraction both say how large the KV pool is: give one of them")
        self.gpu_groups()
        return self

    def gpu_groups(self) -> list[tuple[int, ...]] | None:
        """The given GPUs, `tp` at a time; None where psserve chooses. Raises ValueError if they do not make groups."""
        if self.gpus is None:
            return None
        if len(set(self.gpus)) != len(self.gpus):
            raise ValueError(f"gpus names one twice: {list(self.gpus)}")
        if len(self.gpus) % self.tp:
            raise ValueError(f"{len(self.gpus)} gpus cannot be shared out to servers of tp = {self.tp} GPUs each")
        groups = [self.gpus[i : i + self.tp] for i in range(0, len(self.gpus), self.tp)]
        for group in groups:
            if group != tuple(range(group[0], group[0] + self.tp)):
                raise ValueError(f"a server of tp = {self.tp} needs neighbouring GPUs in order, not {list(group)}")
        return groups


class PrefillOptions(ServerOptions):
    """The servers that run the base."""

    ports: tuple[Port, ...] = ()
    """HTTP port of each replica. Left out: free ones."""
    bootstrap_ports: tuple[Port, ...] = ()
    """Port of each replica where decode servers find it. Left out: free ones."""


class DecodeOptions(ServerOptions):
    """The servers of every module, unless `module.NAME` says otherwise."""

    spare: Annotated[int, Field(ge=0)] = 0
    """GPU memory is kept free for this many more servers, which live changes start."""


class ModuleOptions(ServerOptions):
    """The servers of one module. What is left out is as in `decode`."""

    ports: tuple[Port, ...] = ()
    """HTTP port of each replica. Left out: free ones, which also servers of live changes get."""
