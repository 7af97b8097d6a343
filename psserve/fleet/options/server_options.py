"""Settings for the servers of a role or of a module: tables of fleet.toml (psserve/fleet/options/options.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from psserve.contracts.tables import Count, Name, SettingsTable
from psserve.engine import arguments as engine_arguments
from psserve.engine.settings import Role

AUTO, NO_PARSER = "auto", "none"
Port = Annotated[int, Field(ge=1, le=65535)]
ParserName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
GpuId = Annotated[int, Field(ge=0)]
_PLACING = "decides which GPUs there are to plan with: set it for psserve launch itself"
TARGETS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    *("qkv_proj", "gate_up_proj"),  # as Phi has them
)
_REFUSED_ENV = {
    **dict.fromkeys(("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"), _PLACING),
    "SGLANG_DISAGG_PREFILL_EARLY_SEND_CACHED_PREFIX": "would have KV sent before it is computed: remove it",
}
"""Environment variable -> why it is not the user's to set in servers, and what to do."""


class ServerOptions(SettingsTable):
    """Settings for the servers of a role or module."""

    role: ClassVar[Role | None] = None

    replicas: Count = 1
    """Number of servers (in `decode` and `module.NAME`: of each module). Left out: one; in `prefill`, where it says
    neither `gpus` nor ports, as many as the GPUs that decode servers need not."""
    gpus: tuple[GpuId, ...] | None = Field(default=None, min_length=1)
    """GPUs to use, as CUDA_VISIBLE_DEVICES counts them: `tp` for each replica in turn, again from the first when
    there are more replicas. Left out: psserve chooses."""
    tp: Count = 1
    """Tensor parallel size: GPUs that one server is split over. They must be neighbours (0 and 1, 2 and 3). On CPU
    the parts are processes, which is for trying it out."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Only on machines of a cluster that have all these labels. Left out: on any."""
    kv_tokens: Count | None = None
    """KV pool of each server, in tokens. Left out: a share of what its GPU has left, or on CPU of 16384 a
    server (docs/fleet.md)."""
    memory_fraction: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """In place of kv_tokens: the part of each of its GPUs' memory that a server may take for all it holds."""
    args: tuple[str, ...] = ()
    """SGLang's own arguments, handed to the servers as they are, last."""
    env: Mapping[str, str] = Field(default_factory=dict)
    """Environment variables set in the servers, over all else."""

    @field_validator("args")
    @classmethod
    def _none_reserved(cls, args: tuple[str, ...]) -> tuple[str, ...]:
        if reason := why_refused(args, cls.role):
            raise ValueError(reason)
        return args

    @field_validator("env")
    @classmethod
    def _names(cls, env: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in env.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"{name!r} cannot be set in an environment: give NAME and a text")
            if name in _REFUSED_ENV:
                raise ValueError(f"{name} {_REFUSED_ENV[name]}")
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

    role: ClassVar[Role | None] = Role.PREFILL

    ports: tuple[Port, ...] = ()
    """HTTP port of each replica. Left out: free ones."""
    bootstrap_ports: tuple[Port, ...] = ()
    """Port of each replica where decode servers find it. Left out: free ones."""

    @property
    def fills_gpus(self) -> bool:
        """Whether psserve chooses how many there are."""
        return not self.model_fields_set & {"replicas", "gpus", "ports", "bootstrap_ports"}


class AnswerOptions(ServerOptions):
    """What the tables of decode servers have in common."""

    role: ClassVar[Role | None] = Role.DECODE

    tool_call_parser: ParserName = AUTO
    """SGLang's parser of tool calls in answers; auto: the one that fits the base's chat template, if any; none: calls
    stay text."""
    reasoning_parser: ParserName = AUTO
    """SGLang's parser of thoughts in answers; auto: the one that fits the base's chat template, if any; none: for
    modules that do not think, or to leave thoughts in the text."""


class DecodeOptions(AnswerOptions):
    """The servers of every module, unless `module.NAME` says otherwise."""

    spare: Annotated[int, Field(ge=0)] = 0
    """GPU memory is kept free for this many more servers, which live changes start."""


class AdapterOptions(AnswerOptions):
    """The servers that modules which are adapters share. What is left out is as in `decode`."""

    ports: tuple[Port, ...] = ()
    """HTTP port of each replica. Left out: free ones."""
    max_loras_per_batch: Count = 8
    """Adapters that requests computed at the same time may have; they and the base have their place on each server's
    device. Requests for others wait for some seconds at most."""
    max_loaded: Count | None = None
    """Adapters that each server keeps in main memory; others are read from disk when they are asked for. Left out:
    four times max_loras_per_batch."""
    max_rank: Count | None = None
    """Highest rank that there is room for, so that adapters of this rank can be added while the fleet serves. Left
    out: that of the modules it starts with."""
    targets: tuple[Name, ...] = ()
    """Layers that there is room for beside those that the modules it starts with change, for the same purpose:
    q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; of Phi qkv_proj and gate_up_proj."""

    @field_validator("targets")
    @classmethod
    def _known(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        for name in targets:
            if name not in TARGETS:
                raise ValueError(f"{name!r} is no layer that adapters change: give some of {', '.join(TARGETS)}")
        return targets

    @model_validator(mode="after")
    def _all_of_a_batch_loaded(self) -> AdapterOptions:
        if self.max_loaded is not None and self.max_loaded <= self.max_loras_per_batch:
            raise ValueError(
                f"max_loaded = {self.max_loaded} must be more than max_loras_per_batch = {self.max_loras_per_batch}"
            )
        return self


class ModuleOptions(AnswerOptions):
    """The servers of one module. What is left out is as in `decode`."""

    own_server: bool = False
    """Give a module that is an adapter servers of its own, with its weights merged into the base's. Other modules have
    them anyhow."""
    ports: tuple[Port, ...] = ()
    """HTTP port of each replica. Left out: free ones, which also servers of live changes get."""


# --- SGLang's own arguments


_ADDRESS = (
    "servers listen on 127.0.0.1, over a [cluster] on their machine's address there, and on the plan's ports: the "
    "router's address is --host and --port before the --, a server's port is ports in fleet.toml"
)
_PLACE = "it says which GPUs a server uses: set gpus and tp in fleet.toml"
_ONE_NODE = "a psserve server is one model on tp GPUs of one machine: remove it, and set tp or replicas in fleet.toml"
_MEMORY = "it says how much memory a server takes: set kv_tokens or memory_fraction in fleet.toml"
_EQUAL = "it must be the same on all servers: use psserve's own option of that name"
_MODEL = "the zoo says what a server runs: remove it"
_PAIRING = "it pairs prefill and decode servers: remove it (--transfer chooses the transfer backend)"
_FORMAT = "checkpoints say how weights are quantised (docs/zoo.md), and --kv-cache-dtype what KV caches hold: remove it"
_KEY = "psserve makes a new key for each fleet: remove it, and give clients theirs with --api-key"
RESERVED_ARGUMENTS = {
    **dict.fromkeys(("--host", "--port", "--nccl-port", "--grpc-mode", "--smg-grpc-mode", "--sidecar"), _ADDRESS),
    **dict.fromkeys(("--device", "--base-gpu-id", "--gpu-id-step", "--tp-size", "--tensor-parallel-size"), _PLACE),
    **dict.fromkeys(("--pp-size", "--pipeline-parallel-size", "--dp-size", "--data-parallel-size"), _ONE_NODE),
    **dict.fromkeys(("--nnodes", "--node-rank", "--dist-init-addr", "--nccl-init-addr", "--use-ray"), _ONE_NODE),
    **dict.fromkeys(("--max-total-tokens", "--mem-fraction-static"), _MEMORY),
    **dict.fromkeys(("--page-size", "--context-length", "--dtype", "--kv-cache-dtype"), _EQUAL),
    **dict.fromkeys(("--model-path", "--served-model-name", "--tokenizer-path", "--revision"), _MODEL),
    **dict.fromkeys(("--quantization", "--quantization-param-path", "--torchao-config"), _FORMAT),
    "--load-format": "psserve reads safetensors and nothing else: remove it",
    "--trust-remote-code": "psserve never runs a checkpoint's code: remove it",
    "--config": "its keys would go past psserve's plan: give the arguments one by one",
    **dict.fromkeys(("--api-key", "--admin-api-key"), _KEY),
    "--disaggregation-mode": _PAIRING,
    "--disaggregation-decode-host-receive-threshold": "no transfer backend of SGLang's can do it: remove it",
    "--load-publish-endpoint": "it would publish on every interface, and nobody listens: remove it",
    "--kv-events-config": "KV events hold prompts, and it may publish them on every interface: use --kv-events",
}
"""SGLang's argument -> why it is not the user's, and what to do. Its abbreviations, which SGLang takes, count too."""


def why_refused(arguments: Sequence[str], role: Role | None = None) -> str | None:
    """Say why these arguments cannot be handed to a server, in one line; None if they can.

    With a `role`, those that its workers refuse are refused here, before anything starts.
    """
    if arguments and not arguments[0].startswith("-"):
        return f"{arguments[0]!r} is no argument of SGLang: they start with --"
    for argument in arguments:
        name = argument.partition("=")[0]
        reason = _reason(name) if name.startswith("--") else None
        if reason:
            return f"SGLang's {name} cannot be given: {reason}"
        if role and name.startswith("--") and (reason := engine_arguments.refusal(name, role)):
            return f"SGLang's {reason}"
    return None


def _reason(name: str) -> str | None:
    reason = next((reason for flag, reason in RESERVED_ARGUMENTS.items() if flag.startswith(name)), None)
    return _PAIRING if reason is None and name.startswith("--disaggregation-") else reason
