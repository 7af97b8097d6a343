"""What a user may ask of a fleet: the content of fleet.toml, which the flags of `psserve launch` override.

A table's keys are documented by the strings below them; docs/fleet.schema.json is made from these classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from psserve.fleet.devices import DeviceChoice
from psserve.fleet.engine_args import refusal

DtypeChoice = Literal["auto", "float32", "bfloat16", "float16"]
TransferChoice = Literal["auto", "nixl", "mooncake"]
Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
GpuId = Annotated[int, Field(ge=0)]


class Table(BaseModel):
    """A table of fleet.toml: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class RouterOptions(Table):
    """The HTTP front."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on. One that other machines reach needs a key for clients."""
    port: int = Field(default=30000, ge=0, le=65535)
    """0 picks a free one."""
    api_key_file: str | None = Field(default=None, min_length=1)
    """File (mode 0600) with the key that clients must send; relative to fleet.toml's folder."""
    request_timeout_secs: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Longest time of one request."""
    drain_secs: float = Field(default=30.0, ge=0, allow_inf_nan=False)
    """How long requests in flight may go on when the fleet is told to stop."""


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


class FleetOptions(Table):
    """One fleet: all of fleet.toml."""

    modules: tuple[str, ...] | None = None
    """Names or aliases of the modules to serve. Left out: all of the zoo's."""
    serve_base: bool = False
    """Serve the base itself too, as a module under its own name."""
    device: DeviceChoice = "auto"
    """auto: the GPUs if there are any."""
    dtype: DtypeChoice = "auto"
    """auto: float32 on CPU, bfloat16 on GPU."""
    transfer: TransferChoice = "auto"
    """What moves KV between servers; auto: nixl."""
    page_size: Count = 16
    """Tokens of one KV page. Only whole pages are shared."""
    context_length: Count | None = None
    """Longest prompt and answer together, in tokens. Left out: the base's, or what the smallest KV pool holds."""
    chunked_prefill_size: Count | None = None
    """Longest piece of a prompt computed in one step, in tokens."""
    max_running_requests: Count | None = None
    """Requests each server computes at a time."""
    start_timeout_secs: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    """How long the fleet may take to become ready."""
    router: RouterOptions = RouterOptions()
    prefill: PrefillOptions = PrefillOptions()
    decode: DecodeOptions = DecodeOptions()
    module: Mapping[str, ModuleOptions] = Field(default_factory=dict)
    """Settings of single modules, by name or alias."""
    _file: Path | None = PrivateAttr(default=None)
    _flags: frozenset[str] = PrivateAttr(default=frozenset())

    def come_from(self, file: Path | None, flags: Iterable[str]) -> None:
        """Note the file that was read, and which keys flags gave: messages say so."""
        self._file, self._flags = file, frozenset(flags)

    @property
    def folder(self) -> Path:
        """What paths in the file are relative to."""
        return self._file.parent if self._file else Path()

    def table(self, name: str) -> str:
        """A table of the file, for a message."""
        return f"{self._file}: {name}" if self._file else name

    def said(self, key: str, value: object) -> str:
        """A key and its value as the user gave them, for a message."""
        if key in self._flags or self._file is None:
            return f"{flag_of(key)} {value}"
        return f"{self._file}: {key} = {value}"

    @model_validator(mode="after")
    def _consistent(self) -> FleetOptions:
        if self.modules == () and not self.serve_base:
            raise ValueError("modules names no module: leave it out to serve all")
        _one_port_each("prefill.ports", self.prefill.ports, self.prefill.replicas)
        _one_port_each("prefill.bootstrap_ports", self.prefill.bootstrap_ports, self.prefill.replicas)
        for name in self.module:
            try:
                merged = self.of_module(name)
            except ValidationError as error:
                reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"module.{name}, with the settings of decode: {reason}") from None
            _one_port_each(f"module.{name}.ports", merged.ports, merged.replicas)
        return self

    def of_module(self, *names: str) -> ModuleOptions:
        """The settings of the module with this name and these aliases: its own, and [decode]'s for the rest."""
        own = next((self.module[name] for name in names if name in self.module), ModuleOptions())
        fields = {name: getattr(self.decode, name) for name in ServerOptions.model_fields}
        given = {name: getattr(own, name) for name in own.model_fields_set}
        if given.keys() & {"kv_tokens", "memory_fraction"}:
            fields |= {"kv_tokens": None, "memory_fraction": None}
        return ModuleOptions(**fields | given)


def flag_of(key: str) -> str:
    """The flag of `psserve launch` for a key of fleet.toml, e.g. `--port` for `router.port`."""
    name = "prefill" if key == "prefill.replicas" else key.rpartition(".")[2]
    return "--" + name.replace("_", "-")


def _one_port_each(key: str, ports: tuple[int, ...], replicas: int) -> None:
    if ports and len(ports) != replicas:
        raise ValueError(f"{key} has {len(ports)} ports for {replicas} replicas: give one for each, or none")
