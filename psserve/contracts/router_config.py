"""What the router is told: one JSON file, read at start, and again when it changes (see router/__main__.py).

The supervisor writes it (mode 0600, it holds keys); `psserve route` users write it by hand. Unknown keys are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from psserve.contracts.addresses import is_loopback
from psserve.contracts.api_keys import ApiKey
from psserve.contracts.limits import BreakerLimits, QueueLimits, RequestLimits
from psserve.contracts.tables import Count, Metavar, NoFlag, SettingsTable
from psserve.errors import UsageError

PolicyName = Literal["prefix", "session", "round-robin", "least-loaded", "random"]
POLICIES: tuple[PolicyName, ...] = get_args(PolicyName)
WorkerRole = Literal["prefill", "decode"]
LogFormat = Literal["text", "json"]
Version = Annotated[int, Field(ge=1, validation_alias=AliasChoices("version", "edition"))]
"""Of a module's weights. Files may also call it `edition`, as older ones do."""


VERSION_MARK = "@"
"""Between a module's name and the zoo's number of one of its versions, where clients name both. In no module's name."""
VERSION_HEADER = "x-psserve-module-version"
"""In which the router says which of a module's versions answered."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Thinking(_Strict):
    """What the base's chat template can do of thoughts."""

    by_default: bool
    """Whether its answers have them if nobody says otherwise; always or never, without a switch."""
    switches: tuple[str, ...] = ()
    """The variables by which clients can say otherwise."""


class BaseConfig(_Strict):
    """The base model: what every module's prompt is prefilled with."""

    name: str
    path: str
    vocab_size: int = Field(gt=0)
    context_length: int = Field(gt=1)
    """Tokens of prompt and answer together."""
    kv_token_bytes: int | None = Field(default=None, gt=0)
    """Size of one token's KV. None: not known."""
    thinking: Thinking | None = None
    """None: not known."""


class Trial(_Strict):
    """Another version of a module, served beside it until it takes its place or goes."""

    version: Version
    zoo_version: int
    path: str = ""
    group: str | None = None
    adapter: str | None = None
    share: float = Field(default=0.0, ge=0, le=100)
    """Percent of the sessions that it answers. All others get it if they name it: MODULE@ZOO_VERSION."""
    shadow: bool = False
    """Whether it answers copies of others' requests, to be compared (see router/answers/shadow.py)."""


class ModuleConfig(_Strict):
    """One decode module, as `/v1/models` shows it."""

    name: str
    aliases: tuple[str, ...] = ()
    task: str = ""
    examples: tuple[str, ...] = ()
    """Requests that are its task: what task routing learns from, beside `task`."""
    created: int = 0
    """Unix seconds."""
    path: str = ""
    version: Version = 1
    """Raised when the module's weights are replaced: only workers of the same version serve it."""
    zoo_version: int | None = None
    """What the zoo calls these weights: the version that clients are told. None: `version`."""
    group: str | None = None
    """The decode workers that it shares with others, by their `module`. None: it has workers of its own."""
    adapter: str | None = None
    """What the workers of its group know its weights by, a new name for each version. None: they are the base's."""
    trial: Trial | None = None

    @property
    def shown_version(self) -> int:
        """The version that clients are told."""
        return self.version if self.zoo_version is None else self.zoo_version

    @property
    def tried(self) -> ModuleConfig | None:
        """The version on trial as a module of its own, under the same name."""
        if self.trial is None:
            return None
        return self.model_copy(update={**self.trial.model_dump(exclude={"share", "shadow"}), "trial": None})

    @model_validator(mode="after")
    def _adapter_has_group(self) -> ModuleConfig:
        if self.adapter is not None and self.group is None:
            raise ValueError(f"module {self.name!r}: an adapter needs a group, whose workers hold it beside others")
        return self


class KvEventsConfig(_Strict):
    """ZeroMQ addresses of a worker's KV events (SGLang's `--kv-events-config`)."""

    endpoint: str
    """Where they are published."""
    replay_endpoint: str
    """Where it is asked for past ones."""

    @field_validator("endpoint", "replay_endpoint")
    @classmethod
    def _stays_here(cls, address: str) -> str:
        url = urlsplit(address)
        if url.scheme != "ipc" and not (url.scheme == "tcp" and is_loopback(url.hostname or "")):
            raise ValueError(f"{address!r}: KV events hold prompts, so the address must be ipc://... or loopback")
        return address


class WorkerConfig(_Strict):
    """One SGLang server. Ports are stable across its restarts.

    A decode worker whose module is not listed in this version is on standby: it is probed, but gets no new requests.
    """

    name: str
    role: WorkerRole
    module: str | None = None
    """Of a decode worker: the module that it runs, or the group of modules."""
    version: Version = 1
    """Of its module."""
    host: str = "127.0.0.1"
    port: int = Field(gt=0, lt=65536)
    bootstrap_port: int | None = Field(default=None, gt=0, lt=65536)
    kv_tokens: int | None = Field(default=None, gt=0)
    """Size of its KV pool. None: not known."""
    max_running_requests: int | None = Field(default=None, gt=0)
    """Requests that it computes at a time. None: not known."""
    kv_events: KvEventsConfig | None = None
    """Of a prefill worker. None: it publishes none."""

    @model_validator(mode="after")
    def _role_fields(self) -> WorkerConfig:
        if self.role == "prefill" and self.bootstrap_port is None:
            raise ValueError(f"worker {self.name!r}: a prefill worker needs bootstrap_port")
        if self.role == "decode" and self.module is None:
            raise ValueError(f"worker {self.name!r}: a decode worker needs module")
        return self


class TaskRoutingConfig(_Strict):
    """Settings by which `model: "auto"` finds a module (see task_routing/)."""

    classifier: str = "tfidf"
    threshold: float = Field(default=0.25, ge=0, le=1)
    """Confidence from which on a module is chosen."""
    default_module: str | None = None
    """Who gets requests below it. None: they are refused."""


class RouterSettings(SettingsTable):
    """What a user may set of a router: in fleet.toml's [router] and in the router's own file it is the same."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address of the router. One that other machines reach needs a key for clients."""
    port: int = Field(default=30000, ge=0, le=65535)
    """Port of the router; 0 picks a free one."""
    insecure: bool = False
    """Let other machines in without a key."""
    allowed_hosts: tuple[str, ...] = ()
    """Names under which clients may come. Left out: without keys localhost and addresses, with keys any."""
    limits: RequestLimits = RequestLimits()
    """How large and slow requests may be."""
    queue: QueueLimits = QueueLimits()
    """Who waits when the servers are busy, and how modules share them (docs/faults.md)."""
    breaker: BreakerLimits = BreakerLimits()
    """When a server that fails or stalls gets no more requests (docs/faults.md)."""
    prefill_policy: PolicyName = "prefix"
    """Which prefill server computes a prompt (docs/routing.md); with several router_workers or replicas it is
    session, unless one is given."""
    decode_policy: PolicyName = "session"
    """Which replica of a module answers."""
    router_workers: Count = 1
    """Processes that listen on the router's port and share its work: more than one where requests are so many that one
    core is not enough (docs/router-speed.md)."""
    replicas: Annotated[Count, NoFlag()] = 1
    """Routers of a fleet on Kubernetes, a pod each (docs/cluster.md). On one machine there is one."""
    log_format: LogFormat = "text"
    """Of the router's log: text, or a JSON object a line (docs/metrics.md)."""
    otlp_traces_endpoint: Annotated[str, Field(min_length=1), Metavar("HOST:PORT")] | None = None
    """OpenTelemetry collector for traces of requests (OTLP/HTTP), host:port or a URL. Left out: what the environment
    variable OTEL_EXPORTER_OTLP_ENDPOINT says, if anything."""

    @property
    def processes(self) -> int:
        """Of all routers together: each has its part of what all may take."""
        return self.router_workers * self.replicas

    @model_validator(mode="after")
    def _policy_of_several(self) -> Self:
        """Several processes do not know each other's requests: unless asked, sessions are dealt out by name."""
        if self.processes > 1 and "prefill_policy" not in self.model_fields_set:
            object.__setattr__(self, "prefill_policy", "session")  # as pydantic itself fills frozen models
        return self


CHANGEABLE = frozenset({"modules", "workers", "keys", "was_ready", "serial"})
"""Fields of the file that a running router takes over; for others it must start anew."""


class RouterConfig(RouterSettings):
    """The whole file."""

    model_config = ConfigDict(strict=False)

    api_key: str | None = Field(default=None, min_length=1)
    """What clients must send as `Authorization: Bearer`; None leaves the API open."""
    keys: tuple[ApiKey, ...] | None = None
    """Clients' keys, one of which is then needed (or `api_key`). None: there is no key file."""
    operator_key: str | None = Field(default=None, min_length=1)
    """What the supervisor and psserve's commands send, and nobody else knows. It opens everything."""
    ssl_certfile: Path | None = None
    """Certificate and chain (PEM). None: plain HTTP."""
    ssl_keyfile: Path | None = None
    """Its private key (PEM)."""
    worker_key: str = Field(min_length=1)
    """What the workers require from us."""
    base: BaseConfig
    modules: tuple[ModuleConfig, ...]
    workers: tuple[WorkerConfig, ...]
    request_timeout_s: float = Field(default=600.0, gt=0)
    """From the moment a request's body was read and checked to its last byte: waiting for its turn and further attempts
    included. Clients may ask for less (`x-request-timeout`)."""
    first_byte_timeout_s: float = Field(default=360.0, gt=0)
    """The same until its answer begins (see router/body/headers.py)."""
    upstream_timeout_s: float = Field(default=15.0, gt=0)
    """For connecting to a worker, and for a whole health probe of one that is not busy."""
    drain_timeout_s: float = Field(default=30.0, ge=0)
    """How long requests in flight may go on after SIGTERM."""
    start_timeout_s: float = Field(default=600.0, gt=0)
    """How long after the router's start a module that has never answered may still come."""
    kv_pool_tokens: int | None = Field(default=None, gt=0)
    """Tokens of KV that the smallest worker that prompts go to holds; longer ones are refused. None: not known."""
    one_pool: bool = False
    """Whether prompts take KV of prefill workers alone, until their answers end, and answers that of decode workers."""
    page_size: int = Field(default=16, gt=0)
    """Tokens of a KV page of the workers."""
    task_routing: TaskRoutingConfig | None = None
    """None: there is no `auto`."""
    was_ready: bool = False
    """The fleet has served all its modules once: a router that is started anew waits for none of them."""
    serial: int = 0
    """Told again by `/workers`, so that whoever rewrote the file sees when the router has followed."""

    @model_validator(mode="after")
    def _consistent(self) -> RouterConfig:
        names = [name for module in self.modules for name in (module.name, *module.aliases)]
        if duplicate := _first_duplicate(names):
            raise ValueError(f"module name or alias {duplicate!r} is used twice")
        groups = {module.group for module in self.modules}
        if taken := next((module.name for module in self.modules if not module.group and module.name in groups), None):
            raise ValueError(f"{taken!r} is a group of modules, and a module with workers of its own")
        if duplicate := _first_duplicate([worker.name for worker in self.workers]):
            raise ValueError(f"worker name {duplicate!r} is used twice")
        if (
            self.task_routing is not None
            and self.task_routing.classifier == "base-model"
            and self.base.name not in names
        ):
            raise ValueError("task_routing: the classifier base-model needs the base among modules (--serve-base)")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile belong together: set both or none")
        if not (self.needs_key or self.insecure or is_loopback(self.host)):
            raise ValueError(f"host {self.host!r} is reachable from other machines: set api_key, or use 127.0.0.1")
        if duplicate := _first_duplicate([key.name for key in self.keys or ()]):
            raise ValueError(f"key name {duplicate!r} is used twice")
        return self

    @property
    def needs_key(self) -> bool:
        """Whether clients must send a key. Also while there is none that would do."""
        return self.api_key is not None or self.keys is not None


def load_config(path: Path) -> RouterConfig:
    """Read and check `path`.

    Raises UsageError when the file cannot be read or is not a valid configuration.
    """
    try:
        return RouterConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read the router's configuration {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise UsageError(f"router configuration {path}: {where}: {first['msg']}") from error


def _first_duplicate(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
