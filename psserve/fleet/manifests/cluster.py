"""What is said of a cluster, and the machine that a fleet on it is planned for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from psserve.errors import UsageError
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.nvidia import Gpu

GIB = 1024**3
ENOUGH_GPUS = 1024
"""Where nobody says how many there are: every server gets its own."""
ENOUGH_BYTES = 1 << 50
ENOUGH_CORES = 1 << 20
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
LONGEST_NAME = 52
"""Of a set of pods: Kubernetes adds numbers and hashes, and takes 63 characters."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where objects go, and what its nodes are like."""

    image: str
    """Container image with psserve (deploy/Dockerfile)."""
    name: str = "psserve"
    """All objects' names begin with it."""
    namespace: str = "default"
    zoo_claim: str = "psserve-zoo"
    """PersistentVolumeClaim that holds the zoo."""
    nic: str = "eth0"
    """Pods' network interface, as UCX calls it."""
    gpu_gib: float | None = None
    """Memory of each GPU. None: servers run on CPUs."""
    gpus: int | None = None
    """How many GPUs the fleet gets. None: its own for every server."""
    gpus_per_node: int = 8
    max_replicas: int | None = None
    """Up to how many servers KEDA may scale a module's, and the prefill servers. None: there are as many as planned."""
    prometheus: str = "http://prometheus-operated.monitoring:9090"
    """Where KEDA asks for metrics."""
    service_monitor: bool = False
    lws: bool = False
    """Servers over several nodes may be LeaderWorkerSets."""

    def __post_init__(self) -> None:
        for key, value in (("--name", self.name), ("--namespace", self.namespace)):
            if not _NAME.fullmatch(value) or len(value) > LONGEST_NAME // 2:
                raise UsageError(f"{key} {value}: give a short name of small letters, digits and dashes")
        if self.gpus is not None and self.gpu_gib is None:
            raise UsageError("--gpus needs --gpu-memory: how many GiB each has")

    @property
    def machine(self) -> Machine:
        """All nodes as one machine: only its GPUs bound what is planned."""
        count = 0 if self.gpu_gib is None else self.gpus or ENOUGH_GPUS
        size = round((self.gpu_gib or 0) * GIB)
        return Machine(
            cores=ENOUGH_CORES,
            total_bytes=ENOUGH_BYTES,
            available_bytes=ENOUGH_BYTES,
            gpus=tuple(Gpu(i, "GPU", size, size, None) for i in range(count)),
        )

    @property
    def routers(self) -> str:
        """The name under which every router is found, and not just any of them."""
        return self.name_of("routers")

    def name_of(self, part: str) -> str:
        """The name of a part's objects: a label of DNS, which has small letters and no underscores."""
        plain = re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")
        name = f"{self.name}-{plain}"
        if plain == part and len(name) <= LONGEST_NAME:
            return name
        return f"{name[: LONGEST_NAME - 7]}-{sha256(part.encode()).hexdigest()[:6]}"  # two parts may look alike now
