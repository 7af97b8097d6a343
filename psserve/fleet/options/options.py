"""What a user may ask of a fleet: the content of fleet.toml, which the flags of `psserve launch` override.

A key is documented by the string below it. docs/fleet.schema.json is made from these classes, and so are the flags: a
key of FleetOptions or RouterOptions that is no table is a flag, whose help is the string's first sentence and what
follows `Left out:`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from psserve.contracts.router_config import RouterSettings
from psserve.contracts.tables import Count, File, Name, SettingsTable
from psserve.fleet.options.cluster_options import ClusterOptions
from psserve.fleet.options.server_options import (
    AdapterOptions,
    AnswerOptions,
    DecodeOptions,
    ModuleOptions,
    PrefillOptions,
)

DeviceChoice = Literal["auto", "cuda", "cpu"]
DtypeChoice = Literal["auto", "float32", "bfloat16", "float16"]
TransferChoice = Literal["auto", "nixl", "mooncake", "shared"]
EvictionChoice = Literal["lru", "lfu", "slru"]
WithPorts = TypeVar("WithPorts", AdapterOptions, ModuleOptions)
KvDtypeChoice = Literal["auto", "fp8_e4m3", "fp8_e5m2"]


class RouterOptions(RouterSettings):
    """The HTTP front."""

    api_key_file: File | None = None
    """File with the keys that `psserve keys` made, or with one key alone. Nobody else may read it (mode 0600); relative
    to fleet.toml's folder (docs/security.md). Left out: keys.toml in the zoo, if there."""
    ssl_certfile: File | None = None
    """Certificate and chain (PEM): serve HTTPS. Relative to fleet.toml's folder."""
    ssl_keyfile: File | None = None
    """Its private key (PEM, without a password)."""
    request_timeout_secs: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Longest time of one request. Clients may ask for less (docs/faults.md)."""
    first_byte_timeout_secs: float = Field(default=360.0, gt=0, allow_inf_nan=False)
    """Longest time until a request's answer begins, waiting for its turn included."""
    drain_secs: float = Field(default=30.0, ge=0, allow_inf_nan=False)
    """How long requests in flight may go on when the fleet is told to stop."""
    kv_events: bool = False
    """Route prompts by what the caches of prefill servers report. Exact, but the router must tokenize every prompt
    (docs/routing.md)."""
    task_classifier: Name = "tfidf"
    """What chooses the module for `model: "auto"`: tfidf, base-model (needs serve_base), the name of an installed
    classifier, or none (there is no `auto` then)."""
    task_threshold: float = Field(default=0.25, ge=0, le=1, allow_inf_nan=False)
    """Confidence from which on a module is chosen for `auto`."""
    default_module: Name | None = None
    """Module, or served base, for requests to `auto` below the threshold. Left out: they are refused."""


class FleetOptions(SettingsTable):
    """One fleet: all of fleet.toml."""

    modules: tuple[str, ...] | None = None
    """Names or aliases of the modules to serve. Left out: all of the zoo's."""
    serve_base: bool = False
    """Serve the base itself too, as a module under its own name."""
    device: DeviceChoice = "auto"
    """Where servers run; auto: on the GPUs if there are any."""
    dtype: DtypeChoice = "auto"
    """Numbers that models compute with; auto: float32 on CPU, bfloat16 on GPU (float16 on those before Ampere)."""
    kv_cache_dtype: KvDtypeChoice = "auto"
    """Numbers that the KV cache holds; auto: those of dtype. fp8 halves it, and needs GPUs."""
    transfer: TransferChoice = "auto"
    """What moves KV between servers. shared: nothing does, decode servers read it in the prefill server's pool.
    auto: that on CPU, where no answer is cut by it, else nixl (docs/one-pool.md)."""
    eviction_policy: EvictionChoice = "lru"
    """What a full KV pool of a prefill server gives up first. lru: what was used longest ago; lfu: what came least
    often; slru: what came once alone, as long as there is any, then what was used longest ago (docs/fleet.md)."""
    page_size: Count | None = None
    """Tokens of one KV page. Only whole pages are shared. Left out: 64 on GPUs, 16 on CPU."""
    context_length: Count | None = None
    """Longest prompt and answer together, in tokens. Left out: the base's, or what the smallest KV pool holds."""
    chunked_prefill_size: Count | None = None
    """Longest piece of a prompt computed in one step, in tokens: whole pages."""
    max_running_requests: Count | None = None
    """Requests each server computes at a time."""
    start_timeout_secs: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """How long the fleet may take to become ready. Left out: 300 s and what reading the weights may take; on GPUs 600 s
    more for compiling kernels."""
    router: RouterOptions = RouterOptions()
    prefill: PrefillOptions = PrefillOptions()
    decode: DecodeOptions = DecodeOptions()
    adapters: AdapterOptions = AdapterOptions()
    module: Mapping[str, ModuleOptions] = Field(default_factory=dict)
    """Settings of single modules, by name or alias."""
    cluster: ClusterOptions | None = None
    """Machines that servers run on. Left out: this one."""
    _file: Path | None = PrivateAttr(default=None)
    _flags: frozenset[str] = PrivateAttr(default=frozenset())

    def come_from(self, file: Path | None, flags: Iterable[str]) -> None:
        """Note the file that was read, and which keys flags gave: messages say so."""
        self._file, self._flags = file, frozenset(flags)

    @property
    def folder(self) -> Path:
        """The folder that paths in the file are relative to."""
        return self._file.parent if self._file else Path()

    def path(self, name: str | None) -> Path | None:
        """The file that the options call so, with its whole path."""
        return None if name is None else (self.folder / name).resolve()

    def table(self, name: str) -> str:
        """A table of the file, for a message."""
        return f"{self._file}: {name}" if self._file else name

    def where(self, key: str) -> str:
        """The flag, or file and key, by which the user gave a value, for a message."""
        return flag_of(key) if key in self._flags or self._file is None else f"{self._file}: {key}"

    def said(self, key: str, value: object) -> str:
        """A key and its value as the user gave them, for a message."""
        where = self.where(key)
        return f"{where} {value}" if where.startswith("--") else f"{where} = {value}"

    @model_validator(mode="after")
    def _consistent(self) -> FleetOptions:
        if self.modules == () and not self.serve_base:
            raise ValueError("modules names no module: leave it out to serve all")
        if self.router.task_classifier == "base-model" and not self.serve_base:
            raise ValueError("router.task_classifier base-model asks the base: set serve_base (--serve-base) too")
        if (self.router.ssl_certfile is None) != (self.router.ssl_keyfile is None):
            raise ValueError("router.ssl_certfile and router.ssl_keyfile belong together: give both or none")
        _one_port_each("prefill.ports", self.prefill.ports, self.prefill.replicas)
        _one_port_each("prefill.bootstrap_ports", self.prefill.bootstrap_ports, self.prefill.replicas)
        adapters = _with_decode("adapters", self.of_adapters)
        _one_port_each("adapters.ports", adapters.ports, adapters.replicas)
        for name in self.module:
            merged = _with_decode(f"module.{name}", partial(self.of_module, name))
            _one_port_each(f"module.{name}.ports", merged.ports, merged.replicas)
        return self

    def of_adapters(self) -> AdapterOptions:
        """The settings of the servers that adapters share: those of [adapters], and [decode]'s for the rest."""
        return AdapterOptions(**self._over_decode(self.adapters))

    def of_module(self, *names: str) -> ModuleOptions:
        """The settings of the module with this name and these aliases: its own, and [decode]'s for the rest."""
        own = next((self.module[name] for name in names if name in self.module), ModuleOptions())
        return ModuleOptions(**self._over_decode(own))

    def _over_decode(self, own: AnswerOptions) -> dict[str, Any]:
        fields = {name: getattr(self.decode, name) for name in AnswerOptions.model_fields}
        given = {name: getattr(own, name) for name in own.model_fields_set}
        if given.keys() & {"kv_tokens", "memory_fraction"}:
            fields |= {"kv_tokens": None, "memory_fraction": None}
        return fields | given


def flag_of(key: str) -> str:
    """The flag of `psserve launch` for a key of fleet.toml, e.g. `--port` for `router.port`."""
    name = "prefill" if key == "prefill.replicas" else key.rpartition(".")[2]
    return "--" + name.replace("_", "-")


def _with_decode(table: str, merged: Callable[[], WithPorts]) -> WithPorts:
    """A table's settings over [decode]'s, which may not go together. Raises ValueError."""
    try:
        return merged()
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"{table}, with the settings of decode: {reason}") from None


def _one_port_each(key: str, ports: tuple[int, ...], replicas: int) -> None:
    if ports and len(ports) != replicas:
        raise ValueError(f"{key} has {len(ports)} ports for {replicas} replicas: give one for each, or none")
