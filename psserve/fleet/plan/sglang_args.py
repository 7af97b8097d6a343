"""The one place where SGLang's command lines and environment are made (SGLang 0.5.17 to 0.5.23).

SGLang's ServerArgs changes shape between releases, so psserve passes strings and never touches the class.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from psserve.contracts.router_config import KvEventsConfig
from psserve.engine.cuda.toolkit import compiler_env
from psserve.engine.settings import ADAPTERS, FEW_CORES, LENT_ROWS, ONE_POOL
from psserve.fleet.plan.adapters import AdapterRoom
from psserve.fleet.plan.host import Host

# What a server may inherit. All else is dropped: keys and tokens of the user's shell are none of its business,
# DUMPER_* opens a port that evaluates code, and SGLANG_TEST_* injects faults.
_INHERITED = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "CC", "CXX", "HF_HOME"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "VIRTUAL_ENV"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "PSSERVE_ALLOW_UNTESTED_SGLANG", "PSSERVE_CHECK_PURITY"),
        # SGLang and flashinfer compile kernels on GPUs: where headers and libraries are, how many compilers run at once
        *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "MAX_JOBS"),
    )
)
_INHERITED_PREFIXES = (
    "LC_",
    "CUDA",
    "NVIDIA_",
    "NCCL_",
    "UCX_",
    "MC_",
    "TORCH",
    "TRITON_",
    "TVM_FFI_",
    "FLASHINFER_",
    "SGLANG_",
    "XDG_",
)
_ROUTERS_PREFIXES = ("LC_", "OTEL_")  # the latter says how traces are sampled and sent
_DROPPED_PREFIXES = ("SGLANG_TEST_", "TORCH_LOGS")


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Settings that all servers of a fleet have in common."""

    device: Literal["cpu", "cuda"]
    dtype: str
    kv_cache_dtype: str = "auto"
    """`auto`: that of the model."""
    transfer: str
    eviction_policy: str = "lru"
    """Of prefill servers."""
    page_size: int
    context_length: int
    chunked_prefill_size: int | None
    max_running_requests: int | None
    waiting_timeout_s: int = 60
    """How long a decode server waits for a prompt's KV before it gives the request up."""
    few_cores: bool = False
    """On GPUs: whether threads that wait must leave the cores to others. On CPU they always do."""
    rdma: bool = False
    """Whether Mooncake may use RDMA."""
    lent_rows: int | None = None
    """With one KV pool on GPUs: rows of the largest prefill server's part of it."""

    @property
    def one_pool(self) -> bool:
        """Whether decode servers read the base's KV in the prefill server's pool."""
        return self.transfer == "shared"


def server_args(
    settings: EngineSettings,
    host: Host,
    *,
    role: Literal["prefill", "decode", "whole"],
    checkpoint: Path,
    served_name: str,
    port: int,
    dist_port: int,
    bootstrap_port: int | None,
    gpus: tuple[int, ...],
    kv_tokens: int,
    kv_events: KvEventsConfig | None,
    extra: tuple[str, ...],
    attention: str | None = None,
    tp: int = 1,
    adapters: AdapterRoom | None = None,
) -> tuple[str, ...]:
    """SGLang's arguments for one server on `host`. `gpus` counts visible GPUs there, `tp` many; it is empty on CPU.

    `attention`: the kernels on GPUs; None: SGLang's choice. `adapters`: what there must be room for, if it serves any.
    `extra` comes last.

    A `whole` server both reads prompts and answers; no fleet has one, benchmarks compare with them.
    """
    pairing = () if role == "whole" else _pairing_args(settings, role, bootstrap_port, kv_tokens)
    args = [
        *("--model-path", str(checkpoint), "--served-model-name", served_name, "--load-format", "safetensors"),
        *("--host", host.address, "--port", str(port), "--nccl-port", str(dist_port)),
        *("--device", settings.device, "--dtype", settings.dtype),
        *_optional("--kv-cache-dtype", None if settings.kv_cache_dtype == "auto" else settings.kv_cache_dtype),
        *("--context-length", str(settings.context_length), "--page-size", str(settings.page_size)),
        *("--max-total-tokens", str(kv_tokens), *_device_args(settings, gpus, host)),
        *(("--tp-size", str(tp)) if tp > 1 else ()),
        *_optional("--attention-backend", attention if gpus else None),
        *_optional("--chunked-prefill-size", settings.chunked_prefill_size),
        *_optional("--max-running-requests", settings.max_running_requests),
        *(_eviction_args(settings) if role == "prefill" else ()),
        *pairing,
        *(() if adapters is None else _adapter_args(settings, adapters)),
        *_optional("--kv-events-config", None if kv_events is None else _zmq_publisher(kv_events)),
        *("--skip-server-warmup", "--enable-cache-report", "--enable-metrics"),
        *("--log-level", "info", "--log-level-http", "warning"),
    ]
    return (*args, *extra)


def inheritable(environ: Mapping[str, str]) -> dict[str, str]:
    """What a server or a router may inherit of an environment: of a host's, all that others need to know."""
    return {name: value for name, value in environ.items() if _may_inherit(name) or name.startswith(_ROUTERS_PREFIXES)}


def server_env(
    settings: EngineSettings,
    host: Host,
    *,
    tmp_dir: Path,
    rendezvous: Path,
    extra: Mapping[str, str],
    tp: int = 1,
    adapters: Path | None = None,
    model: str | None = None,
) -> dict[str, str]:
    """The whole environment of one server on `host`, split `tp` times, but for its key.

    `adapters`: where it finds its own. `model`: the module of SGLang that has the class of its model; None: it imports
    all of them, as SGLang does.
    """
    env = {name: value for name, value in host.environ.items() if _may_inherit(name)}
    env.update(_COMMON_ENV)
    env.update({"SGLANG_HOST_IP": host.address, "UCX_NET_DEVICES": host.nic})
    env["TMPDIR"] = str(tmp_dir)
    # Kernels are compiled with the ninja that is installed beside psserve, whether or not its environment is active.
    env["PATH"] = os.pathsep.join([str(Path(host.python).parent), *filter(None, [env.get("PATH")])])
    # A file in place of torch's TCPStore, which listens on every interface whatever address it is given.
    env["SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"] = rendezvous.as_uri()
    env.update(_CPU_ENV if settings.device == "cpu" else _GPU_ENV | compiler_env(env))
    env["SGLANG_DISAGGREGATION_WAITING_TIMEOUT"] = str(settings.waiting_timeout_s)
    if tp > 1:
        env.update(_split_env(settings, tp))
    if settings.few_cores:
        env[FEW_CORES] = "1"
    if settings.transfer == "mooncake" and not settings.rdma:
        env["MC_FORCE_TCP"] = "1"
    if settings.one_pool:
        env[ONE_POOL] = "1"
    if settings.lent_rows is not None:
        env[LENT_ROWS] = str(settings.lent_rows)
    if adapters is not None:
        env[ADAPTERS] = str(adapters)
    if model is not None:
        env[OTHER_MODELS] = ",".join(other_models(model))
    env.update(extra)
    return env


OTHER_MODELS = "SGLANG_DISABLED_MODEL_ARCHS"
"""Names the modules of models that SGLang does not import."""
_FOR_ANY_MODEL = "transformers"
"""The module of SGLang that runs a model with Transformers' own code."""


def other_models(model: str) -> list[str]:
    """The modules of the installed SGLang, if there is one, that have other models: they take a second of a start."""
    package = find_spec("sglang")  # without its import, which takes seconds
    if package is None or package.origin is None:
        return []
    found = (path.stem for path in (Path(package.origin).parent / "srt" / "models").glob("*.py"))
    return sorted(name for name in found if name not in (model, _FOR_ANY_MODEL, "__init__", "registry"))


def router_env(inherited: Mapping[str, str], *, tmp_dir: Path) -> dict[str, str]:
    """The whole environment of the router, which is no SGLang process."""
    env = {name: value for name, value in inherited.items() if name in _INHERITED or name.startswith(_ROUTERS_PREFIXES)}
    return env | {
        "TMPDIR": str(tmp_dir),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


_COMMON_ENV = {
    # SGLang would send a chunk's KV while the forward that computes it runs. It records a CUDA event for the transfer
    # to wait for, which neither NIXL nor Mooncake looks at: decode servers would get KV that is not there yet.
    "SGLANG_DISAGG_PREFILL_EARLY_SEND_CACHED_PREFIX": "0",
    # A server's parts are all on one machine.
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "SGLANG_DISAGGREGATION_BOOTSTRAP_TIMEOUT": "60",
    "SGLANG_ENABLE_FAILED_SESSION_PROBE": "true",
    # /health answers at once; the router's own probe is the real request
    "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}

_CPU_ENV = {
    "CUDA_VISIBLE_DEVICES": "",  # psserve's CPU platform stands aside where it sees a GPU
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # servers share cores: a thread that spins takes them from those it waits for
    "SGLANG_DISAGGREGATION_NIXL_BACKEND_PARAMS": '{"num_threads":"1"}',
}

_SLEEP = "--sleep-on-idle"
"""On a few cores an idle server must not spin."""
_ONE_AFTER_THE_OTHER = "--disable-overlap-schedule"
"""On a CPU a forward is over when its call returns, so there is nothing to overlap scheduling with. A scheduler that
does so all the same looks at each result one forward late: answers run a step past their ends, and a prompt's KV leaves
after the next prompt is read."""
OVERLAP_ON_CPU = "PSSERVE_OVERLAP_ON_CPU"
"""Where `psserve launch` finds 1 here, servers on CPU overlap as those on GPUs do, for tests."""

_GPU_ENV = {
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # nvidia-smi's order, which the plan counts in
}


def kv_event_addresses(tmp_dir: Path, server: str) -> KvEventsConfig:
    """The addresses where a server's KV events are published and asked for.

    They hold prompts, so these are sockets in the fleet's own folder.
    SGLang binds to ipc:// and to wildcards; to a single TCP address it would connect instead.
    """
    return KvEventsConfig(
        endpoint=f"ipc://{tmp_dir / f'kv-{server}'}", replay_endpoint=f"ipc://{tmp_dir / f'kv-{server}-past'}"
    )


def _zmq_publisher(addresses: KvEventsConfig) -> str:
    return json.dumps({"publisher": "zmq", **addresses.model_dump()})


MOST_RESERVED = 512
RESERVED_PART = 8


def reserved_tokens(kv_tokens: int) -> int:
    """KV that a decode server keeps free for the next tokens of each request: SGLang's 512, less in a small pool."""
    return min(MOST_RESERVED, kv_tokens // RESERVED_PART)


def _pairing_args(settings: EngineSettings, role: str, bootstrap_port: int | None, kv_tokens: int) -> tuple[str, ...]:
    backend = "nixl" if settings.one_pool else settings.transfer  # psserve's hooks stand in for it there
    return (
        *("--disaggregation-mode", role, "--disaggregation-transfer-backend", backend),
        *_optional("--disaggregation-bootstrap-port", bootstrap_port),
        *(_decode_args(kv_tokens) if role == "decode" else ()),
    )


def _eviction_args(settings: EngineSettings) -> tuple[str, ...]:
    return _optional("--radix-eviction-policy", None if settings.eviction_policy == "lru" else settings.eviction_policy)


def _decode_args(kv_tokens: int) -> tuple[str, ...]:
    reserved = str(reserved_tokens(kv_tokens))
    return ("--disaggregation-decode-enable-radix-cache", "--num-reserved-decode-tokens", reserved)


def _adapter_args(settings: EngineSettings, room: AdapterRoom) -> tuple[str, ...]:
    return (
        *("--enable-lora", "--max-lora-rank", str(room.rank), "--lora-target-modules", *room.targets),
        *("--max-loras-per-batch", str(room.slots), "--max-loaded-loras", str(room.loaded)),
        # Without it requests for an adapter that is not in the batch wait as long as others for those in it come.
        *("--lora-drain-wait-threshold", "1.0"),
        *("--lora-backend", "torch_native" if settings.device == "cpu" else "csgmv"),
    )


def _device_args(settings: EngineSettings, gpus: tuple[int, ...], host: Host) -> tuple[str, ...]:
    # The fraction is taken of what is free while other servers start too: --max-total-tokens decides, so be generous.
    if gpus:
        # Not CUDA_VISIBLE_DEVICES: CUDA IPC between two servers needs both GPUs visible to both.
        patient = (_SLEEP,) if settings.few_cores else ()
        return (*patient, "--base-gpu-id", str(gpus[0]), "--mem-fraction-static", "0.95")
    return (
        *((_SLEEP,) if host.environ.get(OVERLAP_ON_CPU) == "1" else (_SLEEP, _ONE_AFTER_THE_OTHER)),
        *("--mem-fraction-static", "0.9", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
        *("--cuda-graph-backend-decode", "disabled", "--cuda-graph-backend-prefill", "disabled"),
    )


def _split_env(settings: EngineSettings, tp: int) -> dict[str, str]:
    if settings.device == "cpu":
        # Cores of each part. SGLang wants to be told where it has fewer NUMA nodes than parts; it binds only on AMX.
        return {"SGLANG_CPU_OMP_THREADS_BIND": "|".join(map(str, range(tp)))}
    # SGLang would end a server whose GPUs have unlike memory free, as they have while neighbours load. The plan has
    # seen to it that all fit.
    return {"SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK": "false"}


def _optional(flag: str, value: int | str | None) -> tuple[str, ...]:
    return () if value is None else (flag, str(value))


def _may_inherit(name: str) -> bool:
    if name.startswith(_DROPPED_PREFIXES):
        return False
    return name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
